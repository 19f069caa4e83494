package reuse_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryStore is a store in memory. What is in it may be changed.
type memoryStore struct {
	mu      sync.Mutex
	paths   map[nix.HashPart]*stored
	changed chan struct{}
	news    []narstore.Update
	opens   int
}

type stored struct {
	info *narstore.PathInfo
	nar  []byte
}

func newStore() *memoryStore {
	return &memoryStore{paths: make(map[nix.HashPart]*stored), changed: make(chan struct{})}
}

var _ narstore.Store = (*memoryStore)(nil)

func (s *memoryStore) Info(_ context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.paths[part]; ok {
		return p.info, nil
	}
	return nil, narstore.ErrNotFound
}

type memoryNAR struct{ *bytes.Reader }

func (memoryNAR) Close() error { return nil }

func (s *memoryStore) Open(_ context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.paths[info.Path.HashPart()]; ok {
		s.opens++
		return memoryNAR{bytes.NewReader(p.nar)}, nil
	}
	return nil, narstore.ErrNotFound
}

func (s *memoryStore) Follow(ctx context.Context, f func(narstore.Update) error) error {
	s.mu.Lock()
	first := narstore.Update{Settled: true}
	for _, p := range slices.Collect(maps.Values(s.paths)) {
		first.Added = append(first.Added, p.info)
	}
	seen := len(s.news)
	s.mu.Unlock()
	if err := f(first); err != nil {
		return err
	}
	for {
		s.mu.Lock()
		news, changed := s.news[seen:], s.changed
		seen = len(s.news)
		s.mu.Unlock()
		for _, u := range news {
			if err := f(u); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tell tells the followers; mu is held.
func (s *memoryStore) tell(u narstore.Update) {
	s.news = append(s.news, u)
	close(s.changed)
	s.changed = make(chan struct{})
}

// add adds a path, whose hash part follows from its name and the seed.
func (s *memoryStore) add(tb testing.TB, name string, seed int, nar []byte) *narstore.PathInfo {
	tb.Helper()
	path := pathOf(tb, name, seed)
	info := &narstore.PathInfo{Path: path, NARHash: sha256.Sum256(nar), NARSize: int64(len(nar))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[path.HashPart()] = &stored{info, nar}
	s.tell(narstore.Update{Added: []*narstore.PathInfo{info}, Settled: true})
	return info
}

func (s *memoryStore) remove(part nix.HashPart, tell bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.paths, part)
	if tell {
		s.tell(narstore.Update{Removed: []nix.HashPart{part}, Settled: true})
	}
}

func pathOf(tb testing.TB, name string, seed int) nix.StorePath {
	tb.Helper()
	sum := sha256.Sum256(fmt.Append(nil, name, seed))
	path, err := nix.NewStorePath(nix.HashPart(sum[:20]), name)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// partOf is the hash part of dependency i in generation g.
func partOf(g, i int) nix.HashPart {
	sum := sha256.Sum256(fmt.Append(nil, "part", g, i))
	return nix.HashPart(sum[:20])
}

// built is content in which at every distance bytes one of ten dependencies of a
// generation is mentioned.
func built(content []byte, distance, generation int) []byte {
	b := bytes.Clone(content)
	for i, at := 0, distance; at+34 <= len(b); i, at = i+1, at+distance {
		copy(b[at:], "/"+partOf(generation, i%10).String()+"-")
	}
	return b
}

func manifestOf(tb testing.TB, nar []byte) *chunk.Manifest {
	tb.Helper()
	m, err := chunk.Build(tb.Context(), bytes.NewReader(nar), sha256.Sum256(nar), int64(len(nar)), func([]byte) error { return nil })
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// lab is an index of a store that runs.
type lab struct {
	*reuse.Index
	store *memoryStore
	db    *state.DB
	stop  func()
}

func open(tb testing.TB) *state.DB {
	tb.Helper()
	db, err := state.Open(tb.TempDir()+"/state", zap.NewNop())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

func newLab(tb testing.TB, store *memoryStore, db *state.DB, cfg reuse.Config) *lab {
	tb.Helper()
	if cfg.Background.OnMains == nil {
		cfg.Background.Off = true
	}
	l := &lab{store: store, db: db}
	l.Index = reuse.New(store, reuse.Buckets{Chunks: db.Bucket("reuse"), Paths: db.Bucket("reuse-paths")}, cfg, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	l.stop = sync.OnceFunc(func() { cancel(); <-done })
	tb.Cleanup(l.stop)
	return l
}

// eventually waits for something that must come.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}

// relate waits until the index knows a relative of a path.
func (l *lab) relate(tb testing.TB, want reuse.Want) {
	tb.Helper()
	eventually(tb, "the index knows of a relative", func() bool { return l.Expect(want.Path, want.Hash, want.Size) > 0 })
}

// take takes what can be taken of a NAR, and returns the bytes that could and
// could not, and where each byte of the former is right.
func (l *lab) take(tb testing.TB, want reuse.Want, nar []byte) (sum, masked, missing int64) {
	tb.Helper()
	m := manifestOf(tb, nar)
	s := l.Begin(tb.Context(), want)
	defer s.Close()
	for {
		settled, later := s.Settled(want.Size)
		if settled {
			break
		}
		<-later
	}
	places := make([]reuse.Place, len(m.Chunks))
	s.Find(m.Chunks, places)
	for i := range m.Chunks {
		c := &m.Chunks[i]
		if !places[i].Found() {
			missing += int64(c.Length)
			continue
		}
		b := make([]byte, c.Length)
		if _, err := s.Take(tb.Context(), places[i], c, m.HashParts, b); err != nil {
			missing += int64(c.Length)
			continue
		}
		if !bytes.Equal(b, nar[c.Offset:c.Offset+int64(c.Length)]) {
			tb.Fatalf("chunk at %d is wrong, and was not found to be", c.Offset)
		}
	}
	s.Learn()
	return s.Taken(reuse.BySum), s.Taken(reuse.ByMaskedSum), missing
}

func wantOf(info *narstore.PathInfo) reuse.Want {
	return reuse.Want{Path: info.Path, Hash: info.NARHash, Size: info.NARSize}
}

// target is a NAR that is not in the store.
func target(tb testing.TB, name string, seed int, nar []byte) reuse.Want {
	tb.Helper()
	return reuse.Want{Path: pathOf(tb, name, seed), Hash: sha256.Sum256(nar), Size: int64(len(nar))}
}

func TestRebuildIsTakenFromItsRelative(t *testing.T) {
	content := random(1, 3<<20)
	old, fresh := built(content, 50_000, 1), built(content, 50_000, 2)
	for _, tt := range []struct {
		name, relative string
		plain          bool
		whole          bool
	}{
		{name: "rebuilt", relative: "hello-1.0", whole: true},
		{name: "another version", relative: "hello-0.9.1", whole: true},
		{name: "another output", relative: "hello-1.0-dev", whole: true},
		{name: "no relative", relative: "hallo-1.0"},
		{name: "plain", relative: "hello-1.0", plain: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newStore()
			store.add(t, tt.relative, 1, old)
			l := newLab(t, store, open(t), reuse.Config{Plain: tt.plain})
			want := target(t, "hello-1.0", 2, fresh)
			if tt.relative != "hallo-1.0" {
				l.relate(t, want)
			}
			sum, masked, missing := l.take(t, want, fresh)
			switch {
			case tt.whole && (missing != 0 || masked < 2<<20):
				t.Errorf("took %d by sum and %d by masked sum, %d are missing", sum, masked, missing)
			case tt.plain && (masked != 0 || missing < 2<<20):
				t.Errorf("plain: took %d by sum and %d by masked sum, %d are missing", sum, masked, missing)
			case tt.relative == "hallo-1.0" && sum+masked != 0:
				t.Errorf("took %d by sum and %d by masked sum of no relative", sum, masked)
			}
		})
	}
}
