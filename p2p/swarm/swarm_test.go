package swarm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// finder names the same providers for every NAR.
type finder struct {
	providers []peer.AddrInfo

	mu        sync.Mutex
	forgotten []peer.ID
}

var _ swarm.Finder = (*finder)(nil)

func (f *finder) Providers(context.Context, nix.NARHash, bool) iter.Seq[peer.AddrInfo] {
	return slices.Values(f.providers)
}

func (f *finder) Holders(nix.NARHash) []peer.ID {
	var peers []peer.ID
	for _, p := range f.providers {
		peers = append(peers, p.ID)
	}
	return peers
}

func (f *finder) Forget(_ nix.NARHash, p peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgotten = append(f.forgotten, p)
}

// lab is a swarm and its providers.
type lab struct {
	*swarm.Swarm
	finder   *finder
	standing *swarm.Standing
	// trusted are the providers that the swarm believes beforehand.
	trusted map[peer.ID]bool
}

func newLab(t *testing.T, cfg exchange.ClientConfig, providers ...host.Host) *lab {
	t.Helper()
	log := zaptest.NewLogger(t)
	l := &lab{finder: &finder{}, standing: swarm.NewStanding(), trusted: make(map[peer.ID]bool)}
	for _, p := range providers {
		l.finder.providers = append(l.finder.providers, exchangetest.Info(p))
	}
	h := exchangetest.NewHost(t)
	for _, p := range providers {
		exchangetest.Connect(t, h, p) // so that they are tried in order
	}
	client := exchange.NewClient(h, cfg, log)
	l.Swarm = swarm.New(client, l.finder, l.standing, swarm.Config{
		Trusted: func(p peer.ID, _ ma.Multiaddr) bool { return l.trusted[p] },
	}, log)
	return l
}

// open opens a transfer of the whole NAR.
func (l *lab) open(t *testing.T, hash nix.NARHash, size int) *swarm.Transfer {
	t.Helper()
	tr, err := l.Open(t.Context(), swarm.Want{Hash: hash, Size: int64(size)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// provide runs a provider until the test ends.
func provide(t *testing.T, shelf exchange.Shelf, cfg exchange.ServerConfig, listen ...string) host.Host {
	t.Helper()
	h, _ := provider(t, shelf, cfg, listen...)
	return h
}

func provider(t *testing.T, shelf exchange.Shelf, cfg exchange.ServerConfig, listen ...string) (host.Host, *exchange.Server) {
	t.Helper()
	h := exchangetest.NewHost(t, listen...)
	server := exchange.NewServer(h, shelf, cfg, zaptest.NewLogger(t))
	exchangetest.Run(t, h, server, exchange.Protocols("")[2])
	return h, server
}

// shelve returns a shelf with one NAR.
func shelve(nar []byte) (*exchangetest.Shelf, nix.NARHash) {
	shelf := &exchangetest.Shelf{}
	return shelf, shelf.Add(nar)
}

// settle computes the manifest of a NAR, so that its root is known, and returns
// the root.
func settle(t *testing.T, shelf *exchangetest.Shelf, hash nix.NARHash) chunk.Root {
	t.Helper()
	root, err := shelf.Manifest(t.Context(), hash, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestFetch(t *testing.T) {
	tests := []struct {
		name   string
		size   int
		offset int64
		listen string
	}{
		{name: "one byte", size: 1},
		{name: "100 bytes", size: 100},
		{name: "implicit", size: chunk.ImplicitSize},
		{name: "implicit from the middle", size: chunk.ImplicitSize, offset: 1000},
		{name: "with a manifest", size: chunk.ImplicitSize + 1},
		{name: "with a manifest from the last byte", size: chunk.ImplicitSize + 1, offset: chunk.ImplicitSize},
		{name: "large", size: 5 << 20},
		{name: "large from the middle", size: 5 << 20, offset: 3_000_001},
		{name: "larger than the window", size: 40 << 20},
		{name: "QUIC", size: 5 << 20, offset: 1, listen: "/ip4/127.0.0.1/udp/0/quic-v1"},
	}
	for _, tt := range tests {
		for _, settled := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, settled %t", tt.name, settled), func(t *testing.T) {
				nar := exchangetest.Bytes(1, tt.size)
				shelf, hash := shelve(nar)
				if settled {
					settle(t, shelf, hash)
				}
				var listen []string
				if tt.listen != "" {
					listen = append(listen, tt.listen)
				}
				provider := provide(t, shelf, exchange.ServerConfig{}, listen...)
				l := newLab(t, exchange.ClientConfig{}, provider)
				tr, err := l.Open(t.Context(), swarm.Want{Hash: hash, Size: int64(tt.size), Offset: tt.offset})
				if err != nil {
					t.Fatal(err)
				}
				defer tr.Close()
				got, err := io.ReadAll(tr)
				if err != nil || !bytes.Equal(got, nar[tt.offset:]) {
					t.Fatalf("read %d bytes, %v, want the NAR's last %d", len(got), err, len(nar)-int(tt.offset))
				}
				handed := tr.Handed()
				if len(handed) != 1 || handed[0].Peer != provider.ID().String() || handed[0].Bytes != int64(len(got)) {
					t.Errorf("Handed() = %v", handed)
				}
				if again := tr.Handed(); len(again) > 0 {
					t.Errorf("Handed() again = %v", again)
				}
				sources := tr.Sources()
				if len(sources) != 1 || sources[0].Peer != provider.ID().String() || sources[0].Bytes < int64(len(got)) {
					t.Errorf("Sources() = %v", sources)
				}
			})
		}
	}
}

func TestWantChecked(t *testing.T) {
	l := newLab(t, exchange.ClientConfig{})
	for _, want := range []swarm.Want{
		{Size: 0}, {Size: -1}, {Size: chunk.MaxNARSize + 1}, {Size: 10, Offset: 10}, {Size: 10, Offset: -1},
	} {
		if _, err := l.Open(t.Context(), want); err == nil || errors.Is(err, swarm.ErrNoProviders) {
			t.Errorf("Open(%+v) = %v, want it refused", want, err)
		}
	}
}

func TestNoProviders(t *testing.T) {
	l := newLab(t, exchange.ClientConfig{})
	if _, err := l.Open(t.Context(), swarm.Want{Size: 10}); !errors.Is(err, swarm.ErrNoProviders) {
		t.Errorf("Open() = %v, want ErrNoProviders", err)
	}
}

// TestNotHeld has a provider that the finder was wrong about before one that
// does provide.
func TestNotHeld(t *testing.T) {
	nar := exchangetest.Bytes(1, 100_000)
	shelf, hash := shelve(nar)
	without := provide(t, &exchangetest.Shelf{}, exchange.ServerConfig{})
	l := newLab(t, exchange.ClientConfig{}, without, provide(t, shelf, exchange.ServerConfig{}))
	if got, err := io.ReadAll(l.open(t, hash, len(nar))); err != nil || !bytes.Equal(got, nar) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if diff := cmp.Diff([]peer.ID{without.ID()}, l.finder.forgotten); diff != "" {
		t.Errorf("forgotten (-want +got)\n%s", diff)
	}
	if !l.standing.Usable(without.ID()) {
		t.Error("not to hold a NAR counted against a peer")
	}
}

// TestCorrupt has a provider whose copy is bad, and says so, before a good one.
func TestCorrupt(t *testing.T) {
	nar := exchangetest.Bytes(1, 100_000)
	shelf, hash := shelve(nar)
	bad := &exchangetest.Shelf{}
	bad.AddAs(hash, exchangetest.Bytes(2, len(nar)))
	l := newLab(t, exchange.ClientConfig{}, provide(t, bad, exchange.ServerConfig{}))
	tr, err := l.Open(t.Context(), swarm.Want{Hash: hash, Size: int64(len(nar))})
	if err == nil {
		_, err = io.ReadAll(tr)
		_ = tr.Close()
	}
	if !errors.Is(err, exchange.ErrCorrupt) {
		t.Errorf("a corrupt NAR ended with %v, want ErrCorrupt", err)
	}
	// A NAR of one chunk is known to be wrong before any byte is given.
	small := nar[:chunk.ImplicitSize]
	smallHash := shelf.Add(small)
	bad.AddAs(smallHash, nar[1:1+len(small)])
	l = newLab(t, exchange.ClientConfig{}, provide(t, bad, exchange.ServerConfig{}), provide(t, shelf, exchange.ServerConfig{}))
	if got, err := io.ReadAll(l.open(t, smallHash, len(small))); err != nil || !bytes.Equal(got, small) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// TestBusy has a provider with room for one session, and several transfers.
func TestBusy(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	provider := provide(t, shelf, exchange.ServerConfig{Sessions: 1, RetryAfter: time.Millisecond})
	l := newLab(t, exchange.ClientConfig{}, provider)
	var transfers sync.WaitGroup
	for i := range 4 {
		nar := exchangetest.Bytes(byte(i), 300_000)
		hash := shelf.Add(nar)
		settle(t, shelf, hash)
		transfers.Go(func() {
			tr, err := l.Open(t.Context(), swarm.Want{Hash: hash, Size: int64(len(nar))})
			if err != nil {
				t.Errorf("Open() = %v", err)
				return
			}
			defer tr.Close()
			if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, nar) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	transfers.Wait()
	if !l.standing.Usable(provider.ID()) {
		t.Error("to be busy counted against a peer")
	}
}

// forgetful never has a manifest ready.
type forgetful struct{ *exchangetest.Shelf }

func (s forgetful) Held(hash nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	_, _, held = s.Shelf.Held(hash)
	return chunk.Root{}, false, held
}

// TestOneSession has a provider that computes its manifest and has no room for
// a second session beside that.
func TestOneSession(t *testing.T) {
	nar := exchangetest.Bytes(1, 3<<20)
	shelf, hash := shelve(nar)
	l := newLab(t, exchange.ClientConfig{}, provide(t, forgetful{shelf}, exchange.ServerConfig{SessionsPerPeer: 1}))
	if got, err := io.ReadAll(l.open(t, hash, len(nar))); err != nil || !bytes.Equal(got, nar) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

func TestEarned(t *testing.T) {
	nar := exchangetest.Bytes(1, 300_000)
	one := func(t *testing.T, l *lab, hash nix.NARHash, size int) bool {
		t.Helper()
		tr := l.open(t, hash, size)
		if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, nar[:size]) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
		return tr.Earned()
	}
	t.Run("one stranger", func(t *testing.T) {
		shelf, hash := shelve(nar)
		l := newLab(t, exchange.ClientConfig{}, provide(t, shelf, exchange.ServerConfig{}))
		if one(t, l, hash, len(nar)) {
			t.Error("Earned() by the word of one stranger")
		}
	})
	t.Run("without a manifest", func(t *testing.T) {
		shelf, hash := shelve(nar[:chunk.ImplicitSize])
		l := newLab(t, exchange.ClientConfig{}, provide(t, shelf, exchange.ServerConfig{}))
		if !one(t, l, hash, chunk.ImplicitSize) {
			t.Error("not Earned() by the NAR hash itself")
		}
	})
	t.Run("trusted", func(t *testing.T) {
		shelf, hash := shelve(nar)
		provider := provide(t, shelf, exchange.ServerConfig{})
		l := newLab(t, exchange.ClientConfig{}, provider)
		l.trusted[provider.ID()] = true
		if !one(t, l, hash, len(nar)) {
			t.Error("not Earned() by the word of a trusted peer")
		}
	})
	t.Run("honest before", func(t *testing.T) {
		shelf, hash := shelve(nar)
		l := newLab(t, exchange.ClientConfig{}, provide(t, shelf, exchange.ServerConfig{}))
		tr := l.open(t, hash, len(nar))
		tr.Verdict(true)
		if !one(t, l, hash, len(nar)) {
			t.Error("not Earned() by a peer that was honest before")
		}
		tr = l.open(t, hash, len(nar))
		tr.Verdict(false)
		tr.Verdict(true) // too late
		if _, err := l.Open(t.Context(), swarm.Want{Hash: hash, Size: int64(len(nar))}); !errors.Is(err, swarm.ErrNoProviders) {
			t.Errorf("Open() from a peer that lied = %v, want ErrNoProviders", err)
		}
	})
}

// TestVotes has providers in one address group, and in two. What it waits for
// comes; the test's own deadline bounds it.
func TestVotes(t *testing.T) {
	nar := exchangetest.Bytes(1, 300_000)
	shelf, hash := shelve(nar)
	settle(t, shelf, hash)
	tests := []struct {
		name   string
		listen []string
		earned bool
	}{
		{name: "one group", listen: []string{"127.0.1.1", "127.0.1.2", "127.0.1.3"}},
		{name: "two groups", listen: []string{"127.0.1.1", "127.0.1.2", "127.0.2.1"}, earned: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var hosts []host.Host
			var servers []*exchange.Server
			for _, ip := range tt.listen {
				h, server := provider(t, shelf, exchange.ServerConfig{}, "/ip4/"+ip+"/tcp/0")
				hosts, servers = append(hosts, h), append(servers, server)
			}
			tr := newLab(t, exchange.ClientConfig{}, hosts...).open(t, hash, len(nar))
			if _, err := io.ReadAll(tr); err != nil {
				t.Fatal(err)
			}
			for _, server := range servers {
				for server.Stats().Queries == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			for tt.earned && !tr.Earned() {
				time.Sleep(time.Millisecond)
			}
			if tr.Earned() != tt.earned {
				t.Errorf("Earned() = %t by the votes of %s", !tt.earned, tt.name)
			}
		})
	}
}

// TestEstimate asks what to expect before a transfer and after it.
func TestEstimate(t *testing.T) {
	nar := exchangetest.Bytes(1, 3<<20)
	shelf, hash := shelve(nar)
	l := newLab(t, exchange.ClientConfig{}, provide(t, shelf, exchange.ServerConfig{}), provide(t, shelf, exchange.ServerConfig{}))
	if diff := cmp.Diff(swarm.Estimate{Providers: 2, LAN: true}, l.Estimate(hash)); diff != "" {
		t.Errorf("before (-want +got)\n%s", diff)
	}
	tr := l.open(t, hash, len(nar))
	if _, err := io.Copy(io.Discard, tr); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if e := l.Estimate(hash); e.Rate <= 0 || e.FirstByte <= 0 {
		t.Errorf("Estimate() after a transfer = %+v, want a rate and a time", e)
	}
}

func TestClose(t *testing.T) {
	nar := exchangetest.Bytes(1, 20<<20)
	shelf, hash := shelve(nar)
	l := newLab(t, exchange.ClientConfig{}, provide(t, shelf, exchange.ServerConfig{}))
	tr := l.open(t, hash, len(nar))
	if err := tr.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if n, err := tr.Read(make([]byte, 10)); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("Read() after Close() = %d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tr, err := l.Open(ctx, swarm.Want{Hash: hash, Size: int64(len(nar))})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	cancel()
	if _, err := io.ReadAll(tr); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadAll() after the context's end = %v", err)
	}
}
