package swarm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
	"github.com/nar-p2p/nar-p2p/narstore/state"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// localPath is a path of a store in memory. Its bytes may turn out to be others
// than they were when it was indexed.
type localPath struct {
	info *narstore.PathInfo

	mu   sync.Mutex
	nar  []byte
	gone bool
}

func (p *localPath) ReadAt(b []byte, off int64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return 0, narstore.ErrChanged
	}
	return bytes.NewReader(p.nar).ReadAt(b, off)
}

func (p *localPath) Size() int64  { return p.info.NARSize }
func (p *localPath) Close() error { return nil }

// change changes what is read of the path.
func (p *localPath) change(f func(p *localPath)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

// localStore is a store of the given paths.
type localStore []*localPath

func (s localStore) Info(_ context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	for _, p := range s {
		if p.info.Path.HashPart() == part {
			return p.info, nil
		}
	}
	return nil, narstore.ErrNotFound
}

func (s localStore) Open(_ context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	for _, p := range s {
		if p.info.Path == info.Path {
			return p, nil
		}
	}
	return nil, narstore.ErrNotFound
}

func (s localStore) Follow(ctx context.Context, f func(narstore.Update) error) error {
	u := narstore.Update{Settled: true}
	for _, p := range s {
		u.Added = append(u.Added, p.info)
	}
	if err := f(u); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func hello(tb testing.TB, generation byte) nix.StorePath {
	tb.Helper()
	path, err := nix.NewStorePath(nix.HashPart{generation}, "hello-1.0")
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func localOf(tb testing.TB, generation byte, nar []byte) *localPath {
	tb.Helper()
	return &localPath{
		info: &narstore.PathInfo{Path: hello(tb, generation), NARHash: sha256.Sum256(nar), NARSize: int64(len(nar))},
		nar:  nar,
	}
}

// index returns an index of the paths that runs, and knows which there are.
func index(tb testing.TB, cfg reuse.Config, paths ...*localPath) *reuse.Index {
	tb.Helper()
	db, err := state.Open(tb.TempDir()+"/state", zap.NewNop())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	cfg.Background.Off = true
	x := reuse.New(localStore(paths), reuse.Buckets{Chunks: db.Bucket("reuse"), Paths: db.Bucket("reuse-paths")}, cfg, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	tb.Cleanup(func() { cancel(); <-done })
	for _, p := range paths {
		if p.info.NARSize <= chunk.ImplicitSize {
			continue // it is no relative
		}
		for end := time.Now().Add(time.Minute); x.Expect(hello(tb, 99), nix.NARHash{}, p.info.NARSize) == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				tb.Fatal("the index does not know its store")
			}
		}
	}
	return x
}

// rebuild is content in which a path is mentioned at every distance bytes, one
// of ten, whose hash parts depend on the generation.
func rebuild(content []byte, distance, generation int) []byte {
	b := bytes.Clone(content)
	for i, at := 0, distance; at+34 <= len(b); i, at = i+1, at+distance {
		sum := sha256.Sum256(fmt.Append(nil, "part", generation, i%10))
		copy(b[at:], "/"+nix.HashPart(sum[:20]).String()+"-")
	}
	return b
}

// reuser is a swarm of one provider, which has fresh, and an index.
func reuser(tb testing.TB, x *reuse.Index, fresh []byte) (*swarm.Swarm, nix.NARHash) {
	tb.Helper()
	shelf, hash := shelve(fresh)
	if _, err := shelf.Manifest(tb.Context(), hash, func([]byte) error { return nil }); err != nil {
		tb.Fatal(err)
	}
	provider := exchangetest.NewHost(tb)
	server := exchange.NewServer(provider, shelf, exchange.ServerConfig{}, zap.NewNop())
	exchangetest.Run(tb, provider, server, exchange.Protocols("")[2])
	client := exchange.NewClient(exchangetest.NewHost(tb), exchange.ClientConfig{}, zap.NewNop())
	f := &finder{providers: []peer.AddrInfo{exchangetest.Info(provider)}}
	trusted := func(peer.ID, ma.Multiaddr) bool { return true }
	return swarm.New(client, f, swarm.NewStanding(), swarm.Config{Trusted: trusted, Reuse: x}, zap.NewNop()), hash
}

func TestReuse(t *testing.T) {
	content := exchangetest.Bytes(1, 6<<20)
	old, fresh := rebuild(content, 50_000, 1), rebuild(content, 50_000, 2)
	partly := bytes.Clone(fresh)
	copy(partly[3<<20:4<<20], exchangetest.Bytes(2, 1<<20))
	dense := rebuild(content, 40, 2) // more runs in a chunk than are masked
	for _, tt := range []struct {
		name       string
		old, fresh []byte
		cfg        reuse.Config
		strangers  bool
		offset     int64
		change     func(*localPath)
		// fetched bounds the bytes that are fetched.
		least, most int64
	}{
		{name: "all of it", old: old, fresh: fresh},
		{name: "the very bytes", old: fresh, fresh: fresh},
		{name: "from the middle", old: old, fresh: fresh, offset: 3_000_001},
		{name: "all but a MiB", old: old, fresh: partly, least: 1 << 20, most: 3 << 19},
		{name: "nothing of it", old: exchangetest.Bytes(3, 6<<20), fresh: fresh, least: 6 << 20, most: 6 << 20},
		{name: "too many runs", old: rebuild(content, 40, 1), fresh: dense, least: 5 << 20, most: 6 << 20},
		{name: "too many runs, the very bytes", old: dense, fresh: dense},
		{name: "by sum alone", old: old, fresh: fresh, cfg: reuse.Config{Plain: true}, least: 3 << 20, most: 6 << 20},
		{name: "small", old: old[:chunk.ImplicitSize], fresh: fresh[:chunk.ImplicitSize], least: chunk.ImplicitSize, most: chunk.ImplicitSize},
		{
			name: "gone", old: old, fresh: fresh, least: 6 << 20, most: 6 << 20,
			change: func(p *localPath) { p.gone = true },
		},
		{
			name: "a byte of it is another", old: old, fresh: fresh, least: 1, most: chunk.MaxLength,
			change: func(p *localPath) { p.nar[1<<20] ^= 1 },
		},
		{
			name: "all of it is another", old: old, fresh: fresh, least: 6 << 20, most: 6 << 20,
			change: func(p *localPath) { p.nar = exchangetest.Bytes(3, 6<<20) },
		},
		{
			name: "private, with strangers", old: old, fresh: fresh, strangers: true, least: 6 << 20, most: 6 << 20,
			cfg: reuse.Config{Public: func(*narstore.PathInfo) bool { return false }},
		},
		{
			name: "private, without strangers", old: old, fresh: fresh,
			cfg: reuse.Config{Public: func(*narstore.PathInfo) bool { return false }},
		},
		{
			name: "public, with strangers", old: old, fresh: fresh, strangers: true,
			cfg: reuse.Config{Public: func(*narstore.PathInfo) bool { return true }},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			local := localOf(t, 1, bytes.Clone(tt.old))
			x := index(t, tt.cfg, local)
			s, hash := reuser(t, x, tt.fresh)
			want := swarm.Want{Hash: hash, Path: hello(t, 2), Size: int64(len(tt.fresh)), Strangers: tt.strangers}
			// It is indexed as it was, however long that takes.
			indexRelatives(t, x, want)
			if tt.change != nil {
				local.change(tt.change)
			}
			want.Offset = tt.offset
			tr, err := s.Open(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			got, err := io.ReadAll(tr)
			if err != nil || !bytes.Equal(got, tt.fresh[tt.offset:]) {
				t.Fatalf("read %d bytes, %v", len(got), err)
			}
			tr.Verdict(true)
			p := tr.Progress()
			if p.Verified < tt.least || p.Verified > tt.most || p.Wasted > 0 {
				t.Errorf("fetched %d bytes and %d in vain, want %d to %d", p.Verified, p.Wasted, tt.least, tt.most)
			}
			bySum, masked := tr.Reused()
			if bySum+masked > p.Reused || p.Verified+bySum+masked < want.Size-tt.offset {
				t.Errorf("Reused() = %d, %d with %d fetched and %d taken", bySum, masked, p.Verified, p.Reused)
			}
			var fromStore, all int64
			for _, s := range tr.Handed() {
				all += s.Bytes
				if s.Via == swarm.ViaStore && s.Peer == "" {
					fromStore += s.Bytes
				}
			}
			if fromStore != bySum+masked || all != want.Size-tt.offset {
				t.Errorf("of %d bytes that were handed on %d came from the store, want %d of %d", all, fromStore, bySum+masked, want.Size-tt.offset)
			}
		})
	}
}

// indexRelatives waits until the relatives of a NAR are indexed.
func indexRelatives(tb testing.TB, x *reuse.Index, want swarm.Want) {
	tb.Helper()
	s := x.Begin(tb.Context(), reuse.Want{Path: want.Path, Hash: want.Hash, Size: want.Size})
	defer s.Close()
	for {
		settled, later := s.Settled(want.Size)
		if settled {
			return
		}
		<-later
	}
}

// What was fetched is of use to the next that is like it, as soon as it is in
// the store: here another path with the same content.
func TestReuseOfWhatWasFetched(t *testing.T) {
	content := exchangetest.Bytes(1, 3<<20)
	first, second := rebuild(content, 50_000, 1), rebuild(content, 50_000, 2)
	store := &growing{changed: make(chan *localPath, 1)}
	db, err := state.Open(t.TempDir()+"/state", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	cfg := reuse.Config{Background: reuse.Background{Off: true}}
	x := reuse.New(store, reuse.Buckets{Chunks: db.Bucket("reuse"), Paths: db.Bucket("reuse-paths")}, cfg, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })

	s, hash := reuser(t, x, first)
	tr, err := s.Open(t.Context(), swarm.Want{Hash: hash, Path: hello(t, 1), Size: int64(len(first))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, tr); err != nil {
		t.Fatal(err)
	}
	tr.Verdict(true)
	_ = tr.Close()
	store.changed <- localOf(t, 1, first)

	other, err := nix.NewStorePath(nix.HashPart{2}, "no-relative-2.0")
	if err != nil {
		t.Fatal(err)
	}
	s, hash = reuser(t, x, second)
	for end := time.Now().Add(time.Minute); ; {
		tr, err := s.Open(t.Context(), swarm.Want{Hash: hash, Path: other, Size: int64(len(second))})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(tr)
		if err != nil || !bytes.Equal(got, second) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
		fetched := tr.Progress().Verified
		_ = tr.Close()
		if fetched == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still fetched %d bytes", fetched)
		}
	}
}

// growing is a store that is empty until a path comes.
type growing struct {
	mu      sync.Mutex
	paths   localStore
	changed chan *localPath
}

func (g *growing) Info(ctx context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paths.Info(ctx, part)
}

func (g *growing) Open(ctx context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paths.Open(ctx, info)
}

func (g *growing) Follow(ctx context.Context, f func(narstore.Update) error) error {
	if err := f(narstore.Update{Settled: true}); err != nil {
		return err
	}
	for {
		select {
		case p := <-g.changed:
			g.mu.Lock()
			g.paths = append(g.paths, p)
			g.mu.Unlock()
			if err := f(narstore.Update{Added: []*narstore.PathInfo{p.info}, Settled: true}); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
