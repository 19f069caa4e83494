package swarm_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// lyingShelf has one NAR, whose bytes and manifest need not fit each other.
type lyingShelf struct {
	exchangetest.Shelf
	nar      []byte
	manifest *chunk.Manifest
}

func (s *lyingShelf) Held(nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	return s.manifest.Root(), true, true
}

func (s *lyingShelf) Open(context.Context, nix.NARHash) (narstore.NAR, error) {
	return s.Shelf.Open(context.Background(), s.Add(s.nar))
}

func (s *lyingShelf) Manifest(_ context.Context, _ nix.NARHash, emit func([]byte) error) (chunk.Root, error) {
	return s.manifest.Root(), emit(s.manifest.Encode())
}

// manifestOf returns the manifest of a NAR.
func manifestOf(t *testing.T, nar []byte) *chunk.Manifest {
	t.Helper()
	m, err := chunk.Build(t.Context(), bytes.NewReader(nar), sha256.Sum256(nar), int64(len(nar)), func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// consistent returns a shelf that gives other bytes for a NAR, under a manifest
// that fits them but for the hash it claims.
func consistent(t *testing.T, hash nix.NARHash, other []byte) *lyingShelf {
	t.Helper()
	m := manifestOf(t, other)
	m.NARHash = hash
	return &lyingShelf{nar: other, manifest: m}
}

// flip returns the bytes with one bit changed.
func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// TestWrongBytes has a provider that gives a wrong chunk, early or late, under
// the right manifest.
func TestWrongBytes(t *testing.T) {
	nar := exchangetest.Bytes(1, 3<<20)
	shelf, hash := shelve(nar)
	for _, at := range []int{0, len(nar) - 1} {
		t.Run(fmt.Sprintf("at %d", at), func(t *testing.T) {
			bad := provide(t, &lyingShelf{nar: flip(nar, at), manifest: manifestOf(t, nar)}, exchange.ServerConfig{})
			l := newLab(t, exchange.ClientConfig{}, bad, provide(t, shelf, exchange.ServerConfig{}))
			l.trusted[bad.ID()] = true // its manifest is preferred, and it is right
			for i := range 2 {
				if !l.standing.Usable(bad.ID()) {
					t.Errorf("%d times wrong bytes and not asked any more", i)
				}
				if got, err := io.ReadAll(l.open(t, hash, len(nar))); err != nil || !bytes.Equal(got, nar) {
					t.Fatalf("read %d bytes, %v", len(got), err)
				}
			}
			if l.standing.Usable(bad.ID()) {
				t.Error("wrong bytes twice and still asked")
			}
		})
	}
}

// TestConsistentLie has a provider whose bytes fit its manifest but not the NAR
// hash: only the whole can tell, and Verdict says so.
func TestConsistentLie(t *testing.T) {
	nar := exchangetest.Bytes(1, 3<<20)
	shelf, hash := shelve(nar)
	wrong := flip(nar, 1000)
	liar, honest := provide(t, consistent(t, hash, wrong), exchange.ServerConfig{}), provide(t, shelf, exchange.ServerConfig{})
	l := newLab(t, exchange.ClientConfig{}, liar, honest)
	tr := l.open(t, hash, len(nar))
	if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, wrong) {
		t.Fatalf("read %d bytes, %v, want those of the liar", len(got), err)
	}
	if tr.Earned() {
		t.Error("a stranger's manifest is Earned()")
	}
	tr.Verdict(false)
	if l.standing.Usable(liar.ID()) {
		t.Error("a liar is still asked")
	}
	if got, err := io.ReadAll(l.open(t, hash, len(nar))); err != nil || !bytes.Equal(got, nar) {
		t.Errorf("after the verdict: read %d bytes, %v", len(got), err)
	}
}

// TestAnotherManifestAfterTheVerdict is TestConsistentLie with many liars, who
// have the same wrong manifest: one verdict is the end of all of them.
func TestAnotherManifestAfterTheVerdict(t *testing.T) {
	nar := exchangetest.Bytes(1, 3<<20)
	shelf, hash := shelve(nar)
	settle(t, shelf, hash)
	wrong := consistent(t, hash, flip(nar, 1000))
	l := newLab(t, exchange.ClientConfig{}, provide(t, wrong, exchange.ServerConfig{}), provide(t, wrong, exchange.ServerConfig{}),
		provide(t, wrong, exchange.ServerConfig{}), provide(t, shelf, exchange.ServerConfig{}))
	tr := l.open(t, hash, len(nar))
	if _, err := io.ReadAll(tr); err != nil {
		t.Fatal(err)
	}
	tr.Verdict(false)
	if got, err := io.ReadAll(l.open(t, hash, len(nar))); err != nil || !bytes.Equal(got, nar) {
		t.Errorf("after the verdict: read %d bytes, %v", len(got), err)
	}
}

// bogus returns a shelf whose manifest for a NAR is wrong but for its first
// chunk, and whose bytes are right: with the second chunk it fails.
func bogus(t *testing.T, hash nix.NARHash, nar []byte) *lyingShelf {
	t.Helper()
	m := manifestOf(t, nar)
	m.NARHash = hash
	for i := range m.Chunks[1:] {
		m.Chunks[1+i].Sum[0] ^= 1
	}
	return &lyingShelf{nar: nar, manifest: m}
}

// TestBogusManifestComesFirst has a stranger whose manifest has one right chunk
// before two honest peers, of the same address group: there is no upstream, and
// the transfer goes on under the honest ones' manifest.
func TestBogusManifestComesFirst(t *testing.T) {
	nar := exchangetest.Bytes(1, 3<<20)
	shelf, hash := shelve(nar)
	for _, settled := range []bool{false, true} {
		t.Run(fmt.Sprintf("settled %t", settled), func(t *testing.T) {
			shelf := shelf
			if settled {
				settle(t, shelf, hash)
			}
			l := newLab(t, exchange.ClientConfig{}, provide(t, bogus(t, hash, nar), exchange.ServerConfig{}),
				provide(t, shelf, exchange.ServerConfig{}), provide(t, shelf, exchange.ServerConfig{}))
			// Who reads at once keeps to what it has got. Who then begins anew has
			// the right manifest.
			var err error
			for range 2 {
				var got []byte
				var tr *swarm.Transfer
				if tr, err = l.Open(t.Context(), swarm.Want{Hash: hash, Size: int64(len(nar))}); err != nil {
					continue
				}
				got, err = io.ReadAll(tr)
				_ = tr.Close()
				if err == nil && !bytes.Equal(got, nar) {
					t.Fatal("read other bytes than those of the NAR")
				}
				if err == nil {
					break
				}
			}
			if err != nil {
				t.Errorf("twice in vain: %v", err)
			}
		})
	}
}

// TestHundredIdentities has a hundred peers behind one address with the same
// wrong manifest, all before two honest peers at other addresses. Its bytes are
// not used as they come, and the honest ones' manifest wins.
func TestHundredIdentities(t *testing.T) {
	nar := exchangetest.Bytes(1, 24<<20)
	shelf, hash := shelve(nar)
	settle(t, shelf, hash)
	wrong := consistent(t, hash, flip(nar, 1000))
	var providers []host.Host
	for range 100 {
		providers = append(providers, provide(t, wrong, exchange.ServerConfig{}, "/ip4/127.0.1.1/tcp/0"))
	}
	providers = append(providers, provide(t, shelf, exchange.ServerConfig{}, "/ip4/127.0.2.1/tcp/0"),
		provide(t, shelf, exchange.ServerConfig{}, "/ip4/127.0.3.1/tcp/0"))
	l := newLab(t, exchange.ClientConfig{}, providers...)
	tr := l.open(t, hash, len(nar))
	for !tr.Earned() { // Once the honest ones have been heard.
		time.Sleep(time.Millisecond)
	}
	if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, nar) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// lateShelf says what it holds once it may.
type lateShelf struct {
	*exchangetest.Shelf
	may <-chan struct{}
}

func (s *lateShelf) Held(hash nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	<-s.may
	return s.Shelf.Held(hash)
}

// TestManyManifestsOfOneAddress has peers behind one address, each with a wrong
// manifest of its own, before two honest ones who are far away. A small NAR is held
// until it is verified, and nobody is waited for: a liar is believed, but only once.
func TestManyManifestsOfOneAddress(t *testing.T) {
	nar := exchangetest.Bytes(1, 1<<20)
	shelf, hash := shelve(nar)
	settle(t, shelf, hash)
	var providers []host.Host
	for i := range 30 {
		providers = append(providers, provide(t, consistent(t, hash, flip(nar, 1000*i)), exchange.ServerConfig{}, "/ip4/127.0.1.1/tcp/0"))
	}
	may, never := make(chan struct{}), make(chan struct{})
	defer close(never)
	// Whoever says nothing holds nobody up.
	providers = append(providers, provide(t, &lateShelf{shelf, never}, exchange.ServerConfig{}, "/ip4/127.0.4.1/tcp/0"))
	for _, addr := range []string{"/ip4/127.0.2.1/tcp/0", "/ip4/127.0.3.1/tcp/0"} {
		providers = append(providers, provide(t, &lateShelf{shelf, may}, exchange.ServerConfig{}, addr))
	}
	l := newLab(t, exchange.ClientConfig{}, providers...)
	tr := l.open(t, hash, len(nar))
	if got, err := io.ReadAll(tr); err != nil || bytes.Equal(got, nar) {
		t.Fatalf("read %d bytes, %v, want those of a liar", len(got), err)
	}
	tr.Verdict(false)
	time.AfterFunc(200*time.Millisecond, func() { close(may) })
	tr = l.open(t, hash, len(nar))
	if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, nar) {
		t.Errorf("after the first lie: read %d bytes, %v, want those of the honest", len(got), err)
	}
}

// play runs a provider that answers each session with a function.
func play(t *testing.T, session func(network.Stream)) host.Host {
	t.Helper()
	h := exchangetest.NewHost(t)
	h.SetStreamHandler(exchange.Protocols("")[2], session)
	return h
}

func response(r any) proto.Message {
	switch r := r.(type) {
	case *wirepb.Opened:
		return &wirepb.NARResponse{Response: &wirepb.NARResponse_Opened{Opened: r}}
	case *wirepb.ManifestPiece:
		return &wirepb.NARResponse{Response: &wirepb.NARResponse_ManifestPiece{ManifestPiece: r}}
	case *wirepb.ManifestEnd:
		return &wirepb.NARResponse{Response: &wirepb.NARResponse_ManifestEnd{ManifestEnd: r}}
	case *wirepb.Chunk:
		return &wirepb.NARResponse{Response: &wirepb.NARResponse_Chunk{Chunk: r}}
	default:
		panic("not a response")
	}
}

// conversation returns all that a server says that gives a NAR under a manifest
// that it had ready, and where in it a part ends.
func conversation(nar []byte, m *chunk.Manifest) (said []byte, ends []int) {
	root := m.Root()
	add := func(b []byte, messages ...proto.Message) {
		said = append(exchangetest.Append(said, messages...), b...)
		ends = append(ends, len(said))
	}
	add(nil, response(&wirepb.Opened{ManifestRoot: root[:]}))
	add(nil, response(&wirepb.ManifestPiece{Data: m.Encode()}))
	add(nil, response(&wirepb.ManifestEnd{Outcome: wirepb.ManifestEnd_OUTCOME_CONFIRMED, ManifestRoot: root[:]}))
	for _, c := range m.Chunks {
		add(nar[c.Offset:c.Offset+int64(c.Length)], response(&wirepb.Chunk{
			Encoding: wirepb.Encoding_ENCODING_RAW, Length: uint32(c.Length),
		}))
	}
	return said, ends
}

// TestReplaced has providers that end, or fall silent, between the parts of a
// session and in the middle of them. An honest one takes over. All are tried at
// the same time, since those that fall silent take long.
func TestReplaced(t *testing.T) {
	nar := exchangetest.Bytes(1, 300_000)
	shelf, hash := shelve(nar)
	said, ends := conversation(nar, manifestOf(t, nar))
	honest := provide(t, shelf, exchange.ServerConfig{Sessions: 1000})
	cuts := []int{0}
	for _, end := range ends[:4] {
		cuts = append(cuts, end-10, end)
	}
	ways := map[string]func(network.Stream){
		"ends":   func(st network.Stream) { _ = st.Close() },
		"resets": func(st network.Stream) { _ = st.Reset() },
		"stalls": func(st network.Stream) {
			_, _ = io.Copy(io.Discard, st)
			_ = st.Reset()
		},
	}
	var transfers sync.WaitGroup
	for way, leave := range ways {
		for _, cut := range cuts {
			bad := play(t, func(st network.Stream) {
				_, _ = st.Write(said[:cut])
				leave(st)
			})
			// Long enough for the honest one on a busy machine.
			l := newLab(t, exchange.ClientConfig{StallTimeout: 3 * time.Second}, bad, honest)
			transfers.Go(func() {
				tr, err := l.Open(t.Context(), swarm.Want{Hash: hash, Size: int64(len(nar))})
				if err != nil {
					t.Errorf("%s at %d: Open() = %v", way, cut, err)
					return
				}
				defer tr.Close()
				if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, nar) {
					t.Errorf("%s at %d: read %d bytes, %v", way, cut, len(got), err)
				}
			})
		}
	}
	transfers.Wait()
}

// TestHostileManifests has manifests that no honest peer sends. An honest one
// takes over.
func TestHostileManifests(t *testing.T) {
	nar := exchangetest.Bytes(1, 400_000)
	shelf, hash := shelve(nar)
	longer := manifestOf(t, append(bytes.Clone(nar), 1))
	longer.NARHash = hash
	gap := manifestOf(t, nar)
	gap.Chunks = gap.Chunks[1:]
	tests := []struct {
		name    string
		encoded []byte
	}{
		{"of a longer NAR", longer.Encode()},
		{"with a chunk too few", gap.Encode()},
		{"with a byte too many", append(manifestOf(t, nar).Encode(), 0)},
		{"cut", manifestOf(t, nar).Encode()[:200]},
		{"of another NAR", manifestOf(t, exchangetest.Bytes(2, len(nar))).Encode()},
		{"of nonsense", exchangetest.Bytes(3, 60_000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := sha256.Sum256(tt.encoded)
			bad := play(t, func(st network.Stream) {
				_, _ = st.Write(exchangetest.Append(nil,
					response(&wirepb.Opened{ManifestRoot: root[:]}),
					response(&wirepb.ManifestPiece{Data: tt.encoded}),
					response(&wirepb.ManifestEnd{Outcome: wirepb.ManifestEnd_OUTCOME_CONFIRMED, ManifestRoot: root[:]})))
				_, _ = io.Copy(io.Discard, st)
				_ = st.Reset()
			})
			l := newLab(t, exchange.ClientConfig{}, bad, provide(t, shelf, exchange.ServerConfig{}))
			if got, err := io.ReadAll(l.open(t, hash, len(nar))); err != nil || !bytes.Equal(got, nar) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
}

// dying is a provider that computes its manifest while it gives chunks, and
// whose session on the manifest breaks in the middle.
type dying struct {
	nar      []byte
	manifest []byte
	// gives is how many bytes of the manifest it sends.
	gives int
	// die lets it break the session on the manifest.
	die chan struct{}
}

func (d *dying) serve(st network.Stream) {
	defer st.Reset()
	r := bufio.NewReader(st)
	for {
		var req wirepb.NARRequest
		if err := exchangetest.Read(r, &req); err != nil {
			return
		}
		switch m := req.GetRequest().(type) {
		case *wirepb.NARRequest_Open:
			_, _ = st.Write(exchangetest.Append(nil, response(&wirepb.Opened{})))
		case *wirepb.NARRequest_GetManifest:
			_, _ = st.Write(exchangetest.Append(nil, response(&wirepb.ManifestPiece{Data: d.manifest[:d.gives]})))
			<-d.die
			return
		case *wirepb.NARRequest_Run:
			offset := m.Run.GetOffset()
			for _, n := range m.Run.GetLengths() {
				header := response(&wirepb.Chunk{Encoding: wirepb.Encoding_ENCODING_RAW, Length: n})
				_, _ = st.Write(append(exchangetest.Append(nil, header), d.nar[offset:offset+uint64(n)]...))
				offset += uint64(n)
			}
		}
	}
}

// TestManifestContinued breaks the manifest in the middle, when bytes were
// given under its beginning.
func TestManifestContinued(t *testing.T) {
	nar := exchangetest.Bytes(1, 5<<20)
	shelf, hash := shelve(nar)
	tests := []struct {
		name string
		next exchange.Shelf
		// trusts says that the first one is believed, but not the next.
		trusts bool
		ok     bool
	}{
		{name: "by another with the same", next: shelf, ok: true},
		{name: "by one with a different one", next: consistent(t, hash, flip(nar, 1000))},
		{name: "by one with a different end", next: consistent(t, hash, flip(nar, len(nar)-1)), ok: true},
		{name: "by one less trusted", next: shelf, trusts: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &dying{nar: nar, manifest: manifestOf(t, nar).Encode(), gives: 1000, die: make(chan struct{})}
			first, second := play(t, d.serve), provide(t, tt.next, exchange.ServerConfig{})
			l := newLab(t, exchange.ClientConfig{}, first, second)
			l.trusted[first.ID()] = tt.trusts
			tr := l.open(t, hash, len(nar))
			close(d.die)
			got, err := io.ReadAll(tr)
			if (err == nil) != tt.ok || tt.ok && len(got) != len(nar) {
				t.Fatalf("read %d bytes of %d, %v", len(got), len(nar), err)
			}
			// What was read is the NAR up to where the second may have lied.
			if !bytes.Equal(got[:min(len(got), len(nar)-1)], nar[:min(len(got), len(nar)-1)]) {
				t.Error("read other bytes than those of the NAR")
			}
			if !tt.ok {
				return
			}
			// Whoever sent all of the manifest answers for it.
			tr.Verdict(false)
			if !l.standing.Usable(first.ID()) || l.standing.Usable(second.ID()) {
				t.Error("the verdict is not on the second one alone")
			}
		})
	}
}

// TestDrippingManifest has a provider that sends its manifest byte by byte, so
// that it never falls silent and never comes to a chunk.
func TestDrippingManifest(t *testing.T) {
	nar := exchangetest.Bytes(1, 10<<20)
	shelf, hash := shelve(nar)
	settle(t, shelf, hash) // so that the other provider is quick however busy the machine is
	encoded := manifestOf(t, nar).Encode()
	bad := play(t, func(st network.Stream) {
		defer st.Reset()
		_, err := st.Write(exchangetest.Append(nil, response(&wirepb.Opened{})))
		for i := 0; i < len(encoded) && err == nil; i++ {
			time.Sleep(500 * time.Millisecond)
			_, err = st.Write(exchangetest.Append(nil, response(&wirepb.ManifestPiece{Data: encoded[i : i+1]})))
		}
	})
	l := newLab(t, exchange.ClientConfig{StallTimeout: 5 * time.Second}, bad, provide(t, shelf, exchange.ServerConfig{}))
	// The manifest would take an hour: this only decides how long a broken test
	// takes to fail.
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	tr, err := l.Open(ctx, swarm.Want{Hash: hash, Size: int64(len(nar))})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, nar) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// TestNobodyGood has hostile providers only: the transfer ends with an error.
func TestNobodyGood(t *testing.T) {
	nar := exchangetest.Bytes(1, 400_000)
	hash := nix.NARHash(sha256.Sum256(nar))
	resets := play(t, func(st network.Stream) { _ = st.Reset() })
	empty := provide(t, &exchangetest.Shelf{}, exchange.ServerConfig{})
	gone := exchangetest.NewHost(t)
	l := newLab(t, exchange.ClientConfig{}, resets, empty, gone)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := l.Open(t.Context(), swarm.Want{Hash: hash, Size: int64(len(nar))})
	if err == nil || errors.Is(err, swarm.ErrNoProviders) {
		t.Errorf("Open() = %v, want the last provider's error", err)
	}
}

// TestBusyForEver has a provider that never has room, and a caller that gives
// up.
func TestBusyForEver(t *testing.T) {
	busy := play(t, func(st network.Stream) {
		defer st.Close()
		_, _ = st.Write(exchangetest.Append(nil, &wirepb.NARResponse{Response: &wirepb.NARResponse_Refused{
			Refused: &wirepb.Refused{Status: wirepb.Status_STATUS_BUSY, RetryAfterMs: 1},
		}}))
		_, _ = io.Copy(io.Discard, st)
	})
	l := newLab(t, exchange.ClientConfig{}, busy)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := l.Open(ctx, swarm.Want{Hash: nix.NARHash{1}, Size: 100}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open() = %v, want the caller's deadline", err)
	}
}
