package exchange_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a server and a client that is connected to it.
type pair struct {
	server *exchange.Server
	stop   func()
	client *exchange.Client
	from   host.Host // the client's
	to     peer.ID   // the server's
}

func newPair(t *testing.T, shelf exchange.Shelf, cfg exchange.ServerConfig, listen ...string) *pair {
	t.Helper()
	return newPairOn(t, exchangetest.NewHost(t, listen...), shelf, cfg, listen...)
}

// newPairOn is newPair with the server on a host.
func newPairOn(t *testing.T, h host.Host, shelf exchange.Shelf, cfg exchange.ServerConfig, listen ...string) *pair {
	t.Helper()
	log := zaptest.NewLogger(t)
	server := exchange.NewServer(h, shelf, cfg, log)
	stop := exchangetest.Run(t, h, server, exchange.Protocols(cfg.Prefix)[2])
	from := exchangetest.NewHost(t, listen...)
	exchangetest.Connect(t, from, h)
	client := exchange.NewClient(from, exchange.ClientConfig{Prefix: cfg.Prefix}, log)
	return &pair{server: server, stop: stop, client: client, from: from, to: h.ID()}
}

func (p *pair) open(t *testing.T, hash nix.NARHash, compress bool) *exchange.Session {
	t.Helper()
	s, err := p.client.OpenNAR(t.Context(), p.to, hash, compress)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// fetch gets a whole NAR over one session.
func fetch(t *testing.T, s *exchange.Session, hash nix.NARHash, size int) []byte {
	t.Helper()
	nar, err := tryFetch(s, hash, size)
	if err != nil {
		t.Fatal(err)
	}
	return nar
}

// tryFetch gets the manifest, then the chunks, up to two runs ahead.
func tryFetch(s *exchange.Session, hash nix.NARHash, size int) ([]byte, error) {
	dec := chunk.NewDecoder(hash, int64(size))
	if size > chunk.ImplicitSize {
		_ = s.AskManifest() // what is wrong is found out below
		root, err := s.ReceiveManifest(int64(size), func(piece []byte) error {
			_, err := dec.Write(piece)
			return err
		})
		if err != nil {
			return nil, err
		}
		if m, err := dec.Finish(); err != nil || m.Root() != root {
			return nil, fmt.Errorf("manifest is not that of the root: %w", err)
		}
	}
	chunks := dec.Chunks()
	nar := make([]byte, size)
	for asked, i := 0, 0; i < len(chunks); i++ {
		for asked < len(chunks) && asked < i+16 {
			n := min(8, len(chunks)-asked)
			_ = s.Ask(chunks[asked : asked+n])
			asked += n
		}
		c := &chunks[i]
		if err := s.Receive(c, nar[c.Offset:c.Offset+int64(c.Length)]); err != nil {
			return nil, err
		}
	}
	return nar, nil
}

func TestHave(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	small := shelf.Add(exchangetest.Bytes(1, 100))
	large := shelf.Add(exchangetest.Bytes(2, 100_000))
	known := shelf.Add(exchangetest.Bytes(3, 100_000))
	root, err := shelf.Manifest(t.Context(), known, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	absent := nix.NARHash{1, 2, 3}
	p := newPair(t, shelf, exchange.ServerConfig{})

	got, err := p.client.Have(t.Context(), p.to, []nix.NARHash{small, absent, large, known})
	want := []exchange.Holding{{Held: true}, {}, {Held: true}, {Held: true, Root: root, RootKnown: true}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Have() = %v, (-want +got)\n%s", err, diff)
	}

	full := make([]nix.NARHash, exchange.MaxHashes)
	full[len(full)-1] = known
	got, err = p.client.Have(t.Context(), p.to, full)
	if err != nil || len(got) != len(full) || !got[len(got)-1].RootKnown || got[0].Held {
		t.Errorf("Have() of %d hashes = %d holdings, %v", len(full), len(got), err)
	}
	for _, n := range []int{0, exchange.MaxHashes + 1} {
		if _, err := p.client.Have(t.Context(), p.to, make([]nix.NARHash, n)); err == nil {
			t.Errorf("Have() of %d hashes succeeded", n)
		}
	}
}

// genuine returns the records of package cachetest.
func genuine(t *testing.T) []*narinfo.Info {
	t.Helper()
	names, err := fs.Glob(cachetest.FS, "narinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	infos := make([]*narinfo.Info, len(names))
	for i, name := range names {
		text, err := fs.ReadFile(cachetest.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		if infos[i], err = narinfo.Parse(text); err != nil {
			t.Fatalf("%s: %v", path.Base(name), err)
		}
	}
	return infos
}

func TestNarinfos(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	want := genuine(t)
	parts := make([]nix.HashPart, len(want))
	for i, info := range want {
		parts[i] = info.StorePath.HashPart()
		shelf.AddNarinfo(info)
	}
	parts = append(parts, nix.HashPart{1})
	want = append(want, nil)
	p := newPair(t, shelf, exchange.ServerConfig{})

	got, err := p.client.Narinfos(t.Context(), p.to, parts)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(nix.StorePath{})); diff != "" {
		t.Errorf("Narinfos() (-want +got)\n%s", diff)
	}
	for _, n := range []int{0, exchange.MaxHashParts + 1} {
		if _, err := p.client.Narinfos(t.Context(), p.to, make([]nix.HashPart, n)); err == nil {
			t.Errorf("Narinfos() of %d hash parts succeeded", n)
		}
	}
}

// TestNarinfosBudget asks for more than a server gives at once.
func TestNarinfosBudget(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	info := genuine(t)[0]
	refs := make([]nix.StorePath, 12_000) // about 1 MB a record
	for i := range refs {
		refs[i] = mustPath(t, nix.HashPart{byte(i), byte(i >> 8)}, "a-reference-with-a-name-of-usual-length")
	}
	parts := make([]nix.HashPart, 8)
	for i := range parts {
		parts[i] = nix.HashPart{byte(i + 1)}
		large := *info
		large.StorePath, large.References = mustPath(t, parts[i], "large"), refs
		shelf.AddNarinfo(&large)
	}
	p := newPair(t, shelf, exchange.ServerConfig{})
	for rest := parts; len(rest) > 0; {
		got, err := p.client.Narinfos(t.Context(), p.to, rest)
		busy := (*exchange.BusyError)(nil)
		if len(got) == 0 || err != nil && !errors.As(err, &busy) || (err == nil) != (len(got) == len(rest)) {
			t.Fatalf("Narinfos() of %d large records = %d records, %v", len(rest), len(got), err)
		}
		if len(rest) == len(parts) && err == nil {
			t.Errorf("Narinfos() gave all %d large records at once", len(got))
		}
		for i, info := range got {
			if info == nil || info.StorePath.HashPart() != rest[i] {
				t.Errorf("record of %s = %v", rest[i], info)
			}
		}
		rest = rest[len(got):]
	}
}

func mustPath(t *testing.T, part nix.HashPart, name string) nix.StorePath {
	t.Helper()
	p, err := nix.NewStorePath(part, name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNAR(t *testing.T) {
	text := bytes.Repeat([]byte("/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60 and more. "), 20_000)
	tests := []struct {
		name     string
		nar      []byte
		compress bool
		listen   string
	}{
		{name: "one byte", nar: []byte{'x'}},
		{name: "implicit", nar: exchangetest.Bytes(1, chunk.ImplicitSize)},
		{name: "just with a manifest", nar: exchangetest.Bytes(2, chunk.ImplicitSize+1)},
		{name: "large", nar: exchangetest.Bytes(3, 5<<20)},
		{name: "QUIC", nar: exchangetest.Bytes(4, 5<<20), listen: "/ip4/127.0.0.1/udp/0/quic-v1"},
		{name: "zstd accepted", nar: text, compress: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			shelf := &exchangetest.Shelf{}
			hash := shelf.Add(tt.nar)
			var listen []string
			if tt.listen != "" {
				listen = append(listen, tt.listen)
			}
			p := newPair(t, shelf, exchange.ServerConfig{}, listen...)
			// Once while the manifest is computed, once with it kept.
			for _, known := range []bool{false, len(tt.nar) > chunk.ImplicitSize} {
				s := p.open(t, hash, tt.compress)
				if _, got, err := s.Opened(); err != nil || got != known {
					t.Fatalf("Opened() = root known %t, %v, want %t", got, err, known)
				}
				if got := fetch(t, s, hash, len(tt.nar)); !bytes.Equal(got, tt.nar) {
					t.Fatal("fetched other bytes than those of the NAR")
				}
				if err := s.Close(); err != nil {
					t.Errorf("Close() = %v", err)
				}
			}
			p.stop()
			stats := p.server.Stats()
			whole := int64(2 * len(tt.nar))
			if stats.Sessions != 2 || stats.ActiveSessions != 0 || stats.Uploads != 0 {
				t.Errorf("Stats() = %+v, want 2 sessions, none active", stats)
			}
			if stats.BytesServed > whole || !tt.compress && stats.BytesServed != whole {
				t.Errorf("BytesServed = %d for %d bytes", stats.BytesServed, whole)
			}
		})
	}
}

func TestNotHeld(t *testing.T) {
	p := newPair(t, &exchangetest.Shelf{}, exchange.ServerConfig{})
	s := p.open(t, nix.NARHash{1}, false)
	if _, _, err := s.Opened(); !errors.Is(err, exchange.ErrNotHeld) {
		t.Errorf("Opened() = %v, want ErrNotHeld", err)
	}
	// The same where the request travelled with the opening.
	s = p.open(t, nix.NARHash{1}, false)
	c := chunk.Chunk{Length: 10}
	_ = s.Ask([]chunk.Chunk{c}) // fails or not, as the refusal is late or early
	if err := s.Receive(&c, make([]byte, 10)); !errors.Is(err, exchange.ErrNotHeld) {
		t.Errorf("Receive() = %v, want ErrNotHeld", err)
	}
}

func TestCorrupt(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	const size = 1 << 20
	hash := nix.NARHash{1}
	shelf.AddAs(hash, exchangetest.Bytes(1, size))
	p := newPair(t, shelf, exchange.ServerConfig{})
	s := p.open(t, hash, false)
	if err := s.AskManifest(); err != nil {
		t.Fatal(err)
	}
	pieces := 0
	_, err := s.ReceiveManifest(size, func([]byte) error { pieces++; return nil })
	if !errors.Is(err, exchange.ErrCorrupt) {
		t.Errorf("ReceiveManifest() = %v, want ErrCorrupt", err)
	}
}

func TestWrongBytes(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	nar := exchangetest.Bytes(1, 1000)
	hash := nix.NARHash{1}
	shelf.AddAs(hash, nar)
	p := newPair(t, shelf, exchange.ServerConfig{})
	s := p.open(t, hash, false)
	c := chunk.Chunk{Length: len(nar), Sum: chunk.Sum(hash)}
	if err := s.Ask([]chunk.Chunk{c}); err != nil {
		t.Fatal(err)
	}
	if err := s.Receive(&c, make([]byte, c.Length)); !errors.Is(err, exchange.ErrWrongBytes) {
		t.Errorf("Receive() = %v, want ErrWrongBytes", err)
	}
}

func TestBusy(t *testing.T) {
	tests := []struct {
		name string
		cfg  exchange.ServerConfig
	}{
		{name: "in all", cfg: exchange.ServerConfig{Sessions: 1}},
		{name: "per peer", cfg: exchange.ServerConfig{SessionsPerPeer: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			shelf := &exchangetest.Shelf{}
			nar := exchangetest.Bytes(1, 1000)
			hash := shelf.Add(nar)
			tt.cfg.RetryAfter = 3 * time.Second
			p := newPair(t, shelf, tt.cfg)
			first := p.open(t, hash, false)
			if _, _, err := first.Opened(); err != nil {
				t.Fatal(err)
			}
			second, err := p.client.OpenNAR(t.Context(), p.to, hash, false)
			if err == nil {
				_, _, err = second.Opened()
			}
			if busy := (*exchange.BusyError)(nil); !errors.As(err, &busy) || busy.RetryAfter != tt.cfg.RetryAfter {
				t.Errorf("second session: %v, want busy for %s", err, tt.cfg.RetryAfter)
			}
			// The first one goes on, and questions have places of their own.
			if got := fetch(t, first, hash, len(nar)); !bytes.Equal(got, nar) {
				t.Error("fetched other bytes than those of the NAR")
			}
			if _, err := p.client.Have(t.Context(), p.to, []nix.NARHash{hash}); err != nil {
				t.Errorf("Have() = %v", err)
			}
			if got := p.server.Stats().Refused; got != 1 {
				t.Errorf("Refused = %d, want 1", got)
			}
		})
	}
}

// Nix asks for 25 narinfos at once, and a server answers fewer queries of one
// peer: the others must wait rather than fail.
func TestManyQueriesAtOnce(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, 100))
	p := newPair(t, shelf, exchange.ServerConfig{})
	var g errgroup.Group
	for range 200 {
		g.Go(func() error {
			_, err := p.client.Have(t.Context(), p.to, []nix.NARHash{hash})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// Nix fetches 16 NARs at once, and begins the next as soon as one is there. None
// must be sent away for the seconds after which a busy peer is asked again.
func TestManySessionsAtOnce(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	nar := exchangetest.Bytes(1, 1000)
	hash := shelf.Add(nar)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// With the limits of a node.
	h, err := narhost.New(&narhost.Config{
		Identity: key, Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
		Protocols: exchange.Protocols(""), Service: exchange.ServiceName,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	p := newPairOn(t, h, shelf, exchange.ServerConfig{})
	var g errgroup.Group
	g.SetLimit(16)
	for range 400 {
		g.Go(func() error {
			s, err := p.client.OpenNAR(t.Context(), p.to, hash, false)
			if err != nil {
				return err
			}
			defer s.Close()
			_, err = tryFetch(s, hash, len(nar))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if got := p.server.Stats().Refused; got != 0 {
		t.Errorf("%d sessions were refused", got)
	}
}

// A peer that owes an answer and is silent is checked, others are not.
func TestWatch(t *testing.T) {
	p := liar(t, exchange.ClientConfig{QueryTimeout: time.Hour}, func(network.Stream) {})
	ctx, cancel := context.WithCancel(t.Context())
	checked := make(chan peer.ID, 1)
	var g errgroup.Group
	g.Go(func() error {
		return p.client.Watch(ctx, 50*time.Millisecond, func(silent peer.ID) {
			_ = p.from.Network().ClosePeer(silent)
			checked <- silent
		})
	})
	if _, err := p.client.Have(t.Context(), p.to, make([]nix.NARHash, 1)); err == nil {
		t.Error("Have() of a peer that has gone succeeded")
	}
	if got := <-checked; got != p.to {
		t.Errorf("%s was checked, want %s", got, p.to)
	}
	cancel()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch() = %v", err)
	}

	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, 100))
	q := newPair(t, shelf, exchange.ServerConfig{})
	ctx, cancel = context.WithCancel(t.Context())
	g.Go(func() error {
		return q.client.Watch(ctx, 10*time.Second, func(p peer.ID) { t.Errorf("%s was checked", p) })
	})
	for range 100 {
		if _, err := q.client.Have(t.Context(), q.to, []nix.NARHash{hash}); err != nil {
			t.Error(err)
		}
	}
	cancel()
	_ = g.Wait()
}

func TestAdmit(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, 100))
	p := newPair(t, shelf, exchange.ServerConfig{Admit: func(network.Conn) bool { return false }})
	if _, err := p.client.Have(t.Context(), p.to, []nix.NARHash{hash}); err == nil {
		t.Error("Have() of a peer not admitted succeeded")
	}
}

// TestPrefix shows that networks do not hear each other.
func TestPrefix(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, 100))
	p := newPair(t, shelf, exchange.ServerConfig{Prefix: "/nar-p2p/acme"})
	if _, err := p.client.Have(t.Context(), p.to, []nix.NARHash{hash}); err != nil {
		t.Errorf("Have() in the private network = %v", err)
	}
	public := exchange.NewClient(p.from, exchange.ClientConfig{}, zaptest.NewLogger(t))
	if _, err := public.Have(t.Context(), p.to, []nix.NARHash{hash}); err == nil {
		t.Error("Have() from the public network succeeded")
	}
}

// TestDrain stops a server between two requests of a session.
func TestDrain(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	nar := exchangetest.Bytes(1, 1000)
	hash := shelf.Add(nar)
	p := newPair(t, shelf, exchange.ServerConfig{})
	s := p.open(t, hash, false)
	if got := fetch(t, s, hash, len(nar)); !bytes.Equal(got, nar) {
		t.Fatal("fetched other bytes than those of the NAR")
	}
	p.stop() // does not wait for the session to become idle
	c := chunk.Chunk{Length: len(nar), Sum: chunk.Sum(hash)}
	_ = s.Ask([]chunk.Chunk{c})
	if err := s.Receive(&c, make([]byte, c.Length)); err == nil {
		t.Error("Receive() from a stopped server succeeded")
	}
	if _, err := p.client.Have(t.Context(), p.to, []nix.NARHash{hash}); err == nil {
		t.Error("Have() of a stopped server succeeded")
	}
}

func TestContext(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, 1000))
	p := newPair(t, shelf, exchange.ServerConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	s, err := p.client.OpenNAR(ctx, p.to, hash, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Opened(); err != nil {
		t.Fatal(err)
	}
	cancel()
	// Nothing was asked for: only the context can end the wait.
	if err := s.Receive(&chunk.Chunk{Length: 1}, make([]byte, 1)); err == nil {
		t.Error("Receive() after the context's end succeeded")
	}
	if _, err := p.client.Have(ctx, p.to, []nix.NARHash{hash}); !errors.Is(err, context.Canceled) {
		t.Errorf("Have() after the context's end = %v", err)
	}
}

func TestMetrics(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	nar := exchangetest.Bytes(1, 1000)
	hash := shelf.Add(nar)
	registry := prometheus.NewPedanticRegistry()
	p := newPair(t, shelf, exchange.ServerConfig{Sessions: 1, Registerer: registry})
	s := p.open(t, hash, false)
	fetch(t, s, hash, len(nar))
	if _, err := p.consent(t, hash); !isBusy(err) {
		t.Errorf("second session: %v, want busy", err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"nar_p2p_exchange_served_bytes_total raw":     float64(len(nar)),
		"nar_p2p_exchange_served_bytes_total zstd":    0,
		"nar_p2p_exchange_sessions_total":             1,
		"nar_p2p_exchange_queries_total":              0,
		"nar_p2p_exchange_refused_total full":         1,
		"nar_p2p_exchange_refused_total manifests":    0,
		"nar_p2p_exchange_active_sessions":            1,
		"nar_p2p_exchange_uploads":                    0,
		"nar_p2p_exchange_refused_total not_admitted": 0,
	}
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s = %v, %t, want %v", name, v, ok, value)
		}
	}
}
