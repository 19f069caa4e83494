package exchange_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// farHost is a host to which its peers, all on loopback, appear to be on the
// internet.
type farHost struct {
	host.Host

	mu    sync.Mutex
	addrs map[peer.ID]string
}

// place says where a peer appears to be; elsewhere it is at 11.0.0.1.
func (h *farHost) place(p peer.ID, ip string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.addrs == nil {
		h.addrs = make(map[peer.ID]string)
	}
	h.addrs[p] = ip
}

func (h *farHost) addr(p peer.ID) ma.Multiaddr {
	h.mu.Lock()
	defer h.mu.Unlock()
	ip := h.addrs[p]
	if ip == "" {
		ip = "11.0.0.1"
	}
	return ma.StringCast("/ip4/" + ip + "/tcp/8461")
}

func (h *farHost) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(st network.Stream) { f(farStream{st, h}) })
}

type farStream struct {
	network.Stream
	host *farHost
}

func (s farStream) Conn() network.Conn { return farConn{s.Stream.Conn(), s.host} }

type farConn struct {
	network.Conn
	host *farHost
}

func (c farConn) RemoteMultiaddr() ma.Multiaddr { return c.host.addr(c.RemotePeer()) }

// another returns a client of the same server with an identity of its own.
func (p *pair) another(t *testing.T) *pair {
	t.Helper()
	from := exchangetest.NewHost(t)
	if err := from.Connect(t.Context(), peer.AddrInfo{ID: p.to, Addrs: p.from.Peerstore().Addrs(p.to)}); err != nil {
		t.Fatal(err)
	}
	q := *p
	q.from, q.client = from, exchange.NewClient(from, exchange.ClientConfig{}, zaptest.NewLogger(t))
	return &q
}

// consent opens a session and returns the server's answer.
func (p *pair) consent(t *testing.T, hash nix.NARHash) (*exchange.Session, error) {
	t.Helper()
	s, err := p.client.OpenNAR(t.Context(), p.to, hash, true)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = s.Close() })
	_, _, err = s.Opened()
	return s, err
}

func isBusy(err error) bool {
	busy := (*exchange.BusyError)(nil)
	return errors.As(err, &busy) && busy.RetryAfter > 0
}

// Sessions that ask for nothing must not keep others out, whoever holds them
// and however many.
func TestIdleSessionsGiveWay(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	nar := exchangetest.Bytes(1, 1000)
	hash := shelf.Add(nar)
	p := newPair(t, shelf, exchange.ServerConfig{Sessions: 4, SessionsPerPeer: 2, ReclaimAfter: time.Millisecond})
	var idle []*exchange.Session
	for range 2 {
		q := p.another(t)
		for range 2 {
			s, err := q.consent(t, hash)
			if err != nil {
				t.Fatal(err)
			}
			idle = append(idle, s)
		}
	}
	if got := p.server.Stats().ActiveSessions; got != 4 {
		t.Fatalf("%d sessions, want all 4", got)
	}
	if got := fetch(t, p.open(t, hash, false), hash, len(nar)); !bytes.Equal(got, nar) {
		t.Error("fetched other bytes than those of the NAR")
	}
	busy := 0
	for _, s := range idle {
		_, err := tryFetch(s, hash, len(nar))
		switch {
		case isBusy(err):
			busy++
		case err != nil:
			t.Errorf("idle session: %v", err)
		}
	}
	if busy != 1 {
		t.Errorf("%d of the idle sessions gave way, want 1", busy)
	}
	if got := p.server.Stats().Refused; got != 1 {
		t.Errorf("Refused = %d, want 1", got)
	}
}

// Streams without a request give way too.
func TestSilentStreamsGiveWay(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, 1000))
	p := newPair(t, shelf, exchange.ServerConfig{Sessions: 1, ReclaimAfter: time.Millisecond})
	for _, id := range exchange.Protocols("") {
		st, err := p.from.NewStream(t.Context(), p.to, id)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Reset()
		if _, err := st.Write([]byte{40}); err != nil { // part of a request, so that the server hears of it
			t.Fatal(err)
		}
	}
	q := p.another(t)
	for range 3 {
		if _, err := q.consent(t, hash); err != nil {
			t.Errorf("session: %v", err)
		}
		if _, err := q.client.Have(t.Context(), q.to, []nix.NARHash{hash}); err != nil {
			t.Errorf("Have() = %v", err)
		}
	}
}

// hold keeps the server at work on a session, by not reading what it asks for
// of a NAR of 1 MiB at least, and returns once the server is.
func (p *pair) hold(t *testing.T, hash nix.NARHash) {
	t.Helper()
	st, err := p.from.NewStream(t.Context(), p.to, exchange.Protocols("")[2])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Reset() })
	asked := exchangetest.Append(nil, request(&wirepb.Open{NarHash: hash[:]}))
	run := &wirepb.Run{}
	for range exchange.MaxRunChunks {
		run.Lengths = append(run.Lengths, chunk.MinSize)
	}
	for range 20 { // more than any window takes
		asked = exchangetest.Append(asked, request(run))
	}
	if _, err := st.Write(asked); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(st, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
}

// Clients that ask for much and read nothing give way as well.
func TestSlowReadersGiveWay(t *testing.T) {
	const size = 1 << 20
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, size))
	p := newPair(t, shelf, exchange.ServerConfig{Sessions: 2, ReclaimAfter: time.Millisecond, WriteTimeout: time.Hour})
	p.another(t).hold(t, hash)
	p.another(t).hold(t, hash)
	q := p.another(t)
	_, err := q.consent(t, hash)
	for try := 0; isBusy(err) && try < 100; try++ { // until their writes are stuck
		_, err = q.consent(t, hash)
	}
	if err != nil {
		t.Errorf("session beside slow readers: %v", err)
	}
}

// Identities are free, addresses less so.
func TestAddressGroups(t *testing.T) {
	const size = 1 << 20
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, size))
	far := &farHost{Host: exchangetest.NewHost(t)}
	p := newPairOn(t, far, shelf, exchange.ServerConfig{Sessions: 4, SessionsPerPeer: 4})
	for _, ip := range []string{"11.0.1.1", "11.0.1.2"} {
		q := p.another(t)
		far.place(q.from.ID(), ip)
		q.hold(t, hash)
	}
	third := p.another(t)
	far.place(third.from.ID(), "11.0.1.3")
	if _, err := third.consent(t, hash); !isBusy(err) {
		t.Errorf("third identity of an address group: %v, want busy", err)
	}
	stranger := p.another(t)
	far.place(stranger.from.ID(), "11.0.2.1")
	stranger.hold(t, hash)
	accomplice := p.another(t)
	far.place(accomplice.from.ID(), "11.0.2.2")
	if _, err := accomplice.consent(t, hash); !isBusy(err) {
		t.Errorf("two groups would have every place: %v, want busy", err)
	}
	last := p.another(t)
	far.place(last.from.ID(), "11.0.3.1")
	if _, err := last.consent(t, hash); err != nil {
		t.Errorf("peer of a third address group: %v", err)
	}
}

// Whoever opens many streams is sent no more than others.
func TestUploadLimitIsFair(t *testing.T) {
	// A limit this low keeps what clients have asked for waiting for half a second:
	// a client that gets no CPU for a while does not miss its turns.
	const size, limit = 4 << 20, 2 << 20
	shelf := &exchangetest.Shelf{}
	nar := exchangetest.Bytes(1, size)
	hash := shelf.Add(nar)
	settle(t, shelf, hash)
	p := newPair(t, shelf, exchange.ServerConfig{UploadLimit: limit})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	many := p.another(t)
	var sent, before atomic.Int64
	var g errgroup.Group
	for range 8 {
		s := many.open(t, hash, false)
		g.Go(func() error { return receiveAll(ctx, s, hash, size, func(n int) { sent.Add(int64(n)) }) })
	}
	begin := sync.OnceFunc(func() { before.Store(sent.Load()) })
	if err := receiveAll(t.Context(), p.open(t, hash, false), hash, size, func(int) { begin() }); err != nil {
		t.Fatal(err)
	}
	got := sent.Load() - before.Load()
	cancel()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if got < size*7/10 || got > size*13/10 {
		t.Errorf("8 streams of one peer were sent %d bytes while one of another was sent %d", got, size)
	}
}

// receiveAll fetches a NAR, two runs ahead, and tells got of every chunk, until
// ctx ends.
func receiveAll(ctx context.Context, s *exchange.Session, hash nix.NARHash, size int, got func(n int)) error {
	dec := chunk.NewDecoder(hash, int64(size))
	if err := s.AskManifest(); err != nil {
		return err
	}
	if _, err := s.ReceiveManifest(int64(size), func(b []byte) error { _, err := dec.Write(b); return err }); err != nil {
		return err
	}
	chunks := dec.Chunks()
	buf := make([]byte, chunk.MaxLength)
	for asked, i := 0, 0; i < len(chunks); i++ {
		for asked < min(len(chunks), i+16) {
			n := min(8, len(chunks)-asked)
			if err := s.Ask(chunks[asked : asked+n]); err != nil {
				return err
			}
			asked += n
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.Receive(&chunks[i], buf[:chunks[i].Length]); err != nil {
			return err
		}
		got(chunks[i].Length)
	}
	return nil
}

// settle computes the manifest of a NAR.
func settle(tb testing.TB, shelf exchange.Shelf, hash nix.NARHash) {
	tb.Helper()
	if _, err := shelf.Manifest(tb.Context(), hash, func([]byte) error { return nil }); err != nil {
		tb.Fatal(err)
	}
}

// Under an upload limit that would leave them too little, further peers are
// told to come back, and served once there is no limit.
func TestUploadLimitIsNotSpreadThin(t *testing.T) {
	const size = 1 << 20
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, size))
	p := newPair(t, shelf, exchange.ServerConfig{UploadLimit: 64 << 10})
	p.another(t).hold(t, hash)
	c := chunk.Chunk{Length: 1000}
	ask := func() error {
		s := p.open(t, hash, false)
		if err := s.Ask([]chunk.Chunk{c}); err != nil {
			return err
		}
		return s.Receive(&c, make([]byte, c.Length))
	}
	if err := ask(); !isBusy(err) {
		t.Errorf("second peer: %v, want busy", err)
	}
	p.server.LimitUploads(0)
	if err := ask(); !errors.Is(err, exchange.ErrWrongBytes) { // some bytes, at least
		t.Errorf("second peer without a limit: %v", err)
	}
}

// The more are sent away, the later they are to come back.
func TestRetryTimeGrows(t *testing.T) {
	const size = 1 << 20
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, size))
	p := newPair(t, shelf, exchange.ServerConfig{Sessions: 1, RetryAfter: 10 * time.Second})
	p.another(t).hold(t, hash)
	var last time.Duration
	for i := range 4 {
		_, err := p.consent(t, hash)
		busy := (*exchange.BusyError)(nil)
		if !errors.As(err, &busy) || busy.RetryAfter < last || busy.RetryAfter > 30*time.Second {
			t.Fatalf("refusal %d: %v, want busy for more than %v, up to 30 s", i, err, last)
		}
		last = busy.RetryAfter
	}
	if last <= 10*time.Second {
		t.Errorf("the fourth refusal is for %v, as the first", last)
	}
}

// Over a line that is taken for slow what shrinks goes out compressed, and what
// does not is not even tried for long.
func TestEncodings(t *testing.T) {
	text := bytes.Repeat([]byte("/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60 and more. "), 20_000)
	tests := []struct {
		name       string
		nar        []byte
		accepted   bool
		compressed bool
	}{
		{"text", text, true, true},
		{"small text", text[:1000], true, true},
		{"text, zstd not accepted", text, false, false},
		{"incompressible", exchangetest.Bytes(1, 4<<20), true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			shelf := &exchangetest.Shelf{}
			hash := shelf.Add(tt.nar)
			p := newPairOn(t, &farHost{Host: exchangetest.NewHost(t)}, shelf, exchange.ServerConfig{})
			if got := fetch(t, p.open(t, hash, tt.accepted), hash, len(tt.nar)); !bytes.Equal(got, tt.nar) {
				t.Error("fetched other bytes than those of the NAR")
			}
			p.stop()
			stats := p.server.Stats()
			size := int64(len(tt.nar))
			if tt.compressed && (stats.BytesCompressed == 0 || stats.BytesServed > size/2) ||
				!tt.compressed && (stats.BytesCompressed != 0 || stats.BytesServed != size) {
				t.Errorf("%d bytes went out compressed, %d in all, of a NAR of %d", stats.BytesCompressed, stats.BytesServed, size)
			}
		})
	}
}

// An upload limit is a slow line, wherever the peer is.
func TestUploadLimitCompresses(t *testing.T) {
	nar := bytes.Repeat([]byte("text, "), 10_000)
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(nar)
	p := newPair(t, shelf, exchange.ServerConfig{UploadLimit: 10 << 20})
	if got := fetch(t, p.open(t, hash, true), hash, len(nar)); !bytes.Equal(got, nar) {
		t.Error("fetched other bytes than those of the NAR")
	}
	p.stop()
	if stats := p.server.Stats(); stats.BytesServed > int64(len(nar))/2 {
		t.Errorf("%d bytes went out of a NAR of %d", stats.BytesServed, len(nar))
	}
}

// busyShelf has no room to compute a manifest.
type busyShelf struct {
	exchangetest.Shelf
	retryAfter time.Duration
}

func (s *busyShelf) Manifest(context.Context, nix.NARHash, func([]byte) error) (chunk.Root, error) {
	return chunk.Root{}, fmt.Errorf("no room: %w", &narstore.BusyError{RetryAfter: s.retryAfter})
}

// Manifests that there is no room to compute are to be asked for again when
// there is.
func TestManifestBusy(t *testing.T) {
	const size = 100_000
	shelf := &busyShelf{retryAfter: 7 * time.Second}
	hash := shelf.Add(exchangetest.Bytes(1, size))
	p := newPair(t, shelf, exchange.ServerConfig{})
	s := p.open(t, hash, false)
	if err := s.AskManifest(); err != nil {
		t.Fatal(err)
	}
	_, err := s.ReceiveManifest(size, func([]byte) error { return nil })
	if busy := (*exchange.BusyError)(nil); !errors.As(err, &busy) || busy.RetryAfter != shelf.retryAfter {
		t.Errorf("ReceiveManifest() = %v, want busy for %v", err, shelf.retryAfter)
	}
}
