package reuse

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// maxOpen is how many NARs a session keeps open. Its chunks come from one or
	// two, as a rule.
	maxOpen = 4
	// maxWrong is how many chunks of a path may turn out wrong before it is left
	// alone.
	maxWrong = 3
	// lead is how far, in bytes, the indexing of a relative must be ahead of a
	// chunk for it to be settled that the chunk is not there: what was put in front
	// of it since is seldom more.
	lead = 1 << 20
)

// How is how a chunk was taken from the store.
type How int

// The ways.
const (
	// BySum is as it is.
	BySum How = iota
	// ByMaskedSum is with other hash parts in its runs.
	ByMaskedSum
	// ByName is with other names of store paths as well.
	ByName
	ways
)

// String returns the word that metrics use.
func (h How) String() string { return [...]string{"sum", "masked", "renamed"}[h] }

// Want is a NAR whose chunks are looked for.
type Want struct {
	// Path may be zero: then no relatives are known.
	Path nix.StorePath
	Hash nix.NARHash
	// Size is in bytes.
	Size int64
	// References are what the path refers to. Where they are known chunks are found
	// too in which their names have changed.
	References []nix.StorePath
	// Strangers says that strangers may notice which chunks are not fetched.
	Strangers bool
}

// Session takes chunks of one NAR from the store. Its methods but Guess are safe
// for concurrent use.
type Session struct {
	index *Index
	want  Want
	like  likeness
	// expected is the share of the NAR that is expected to be found.
	expected float64
	// awaited is the job of the best relative, nil where that is indexed already.
	awaited *job
	// best is the best relative; it has no name where there is none.
	best member
	// guessing says that it was found out whether there is something to guess.
	guessing bool
	guesses  *guesses
	// tasks are all relatives that are not indexed yet.
	tasks []task
	taken [ways]atomic.Int64

	// opening is held while a NAR is opened: who wants another chunk wants it of
	// the same one. It comes before mu.
	opening sync.Mutex
	nars    *simplelru.LRU[nix.HashPart, narstore.NAR]
	closed  bool

	mu sync.Mutex
	// wrong counts the chunks of each path that were not what they should be;
	// maxWrong and more leave it alone.
	wrong map[nix.HashPart]int
}

// Begin looks for relatives of a NAR, which it has indexed if they are not yet,
// without waiting for that. The session must be closed.
func (x *Index) Begin(ctx context.Context, want Want) *Session {
	s := &Session{index: x, want: want, wrong: make(map[nix.HashPart]int)}
	nars, err := simplelru.NewLRU(maxOpen, func(_ nix.HashPart, nar narstore.NAR) { _ = nar.Close() })
	if err != nil {
		panic("reuse: " + err.Error()) // the size is positive
	}
	s.nars = nars
	if want.Path.IsZero() {
		return s
	}
	relatives := x.kin.relatives(want.Path, want.Size)
	var covers float64
	s.like, covers = likenessOf(want.Path, want.Size, relatives)
	if len(relatives) > 0 {
		s.best = relatives[0]
	}
	s.expected = covers * x.learned.expect(want.Hash, s.like)
	if want.Size <= chunk.ImplicitSize {
		return s // there are no hash parts to write into a relative's chunk
	}
	if s.tasks = x.wanting(relatives, want.Size); len(s.tasks) == 0 {
		return s
	}
	if s.tasks[0].part == relatives[0].part {
		s.awaited = s.tasks[0].job
	}
	// Not the caller's context: what is begun is of use to others.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), jobTime)
	x.mu.Lock()
	x.cancels[s] = cancel
	x.running.Add(1)
	x.mu.Unlock()
	go func() {
		defer x.running.Done()
		x.perform(ctx, s.tasks)
		x.mu.Lock()
		delete(x.cancels, s)
		x.mu.Unlock()
		cancel()
	}()
	return s
}

// Expected returns the share of the NAR, from 0 to 1, that is expected to be
// found.
func (s *Session) Expected() float64 { return s.expected }

// Vain reports whether nothing can be found: nothing is indexed, and nothing
// being indexed.
func (s *Session) Vain() bool { return s.awaited == nil && s.index.records.empty() }

// Settled reports whether it will not be found out any more that a chunk is
// local that ends at this offset and was not found. If not, later is closed when
// it may be.
func (s *Session) Settled(end int64) (settled bool, later <-chan struct{}) {
	if s.awaited == nil {
		return true, nil
	}
	front, ended, grown := s.awaited.state()
	return ended || front >= end+lead, grown
}

// Find puts into places where chunks of the NAR lie, as far as they are known.
func (s *Session) Find(chunks []chunk.Chunk, places []Place) {
	x := s.index
	if x.records.empty() {
		return
	}
	x.entries.find(chunks, places, !x.cfg.Plain, s.usable)
}

// usable reports whether a place may be used, and whether it leads nowhere.
func (s *Session) usable(p Place) (ok, dead bool) {
	r, known := s.index.records.get(p.part)
	if !known || p.offset+int64(p.length) > r.size {
		return false, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return (r.public || !s.want.Strangers) && s.wrong[p.part] < maxWrong, false
}

// Take reads a chunk from its place into b, which has its length, and says how
// it was made the chunk. Parts are the manifest's hash parts. Where there is no
// error b is the chunk: its sum was checked.
func (s *Session) Take(ctx context.Context, p Place, c *chunk.Chunk, parts []nix.HashPart, b []byte) (How, error) {
	nar, err := s.open(ctx, p.part)
	if err == nil {
		var n int
		if n, err = nar.ReadAt(b, p.offset); n == len(b) {
			err = nil
		}
	}
	if err != nil {
		s.giveUp(ctx, p.part, maxWrong, err)
		return 0, fmt.Errorf("reuse: %s: %w", p.part, err)
	}
	changed := false
	if p.named {
		err = c.RestoreNamed(b, parts, s.guesses.rename)
	} else {
		changed, err = c.Restore(b, parts)
	}
	if err != nil {
		s.giveUp(ctx, p.part, 1, err)
		return 0, fmt.Errorf("reuse: %s at %d: %w", p.part, p.offset, err)
	}
	how := BySum
	switch {
	case p.named:
		how = ByName
	case changed:
		how = ByMaskedSum
	}
	s.taken[how].Add(int64(len(b)))
	s.index.reused.WithLabelValues(how.String()).Add(float64(len(b)))
	return how, nil
}

// open returns the NAR of a path.
func (s *Session) open(ctx context.Context, part nix.HashPart) (narstore.NAR, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.closed {
		return nil, errStopped
	}
	if nar, ok := s.nars.Get(part); ok {
		return nar, nil
	}
	r, ok := s.index.records.get(part)
	if !ok {
		return nil, narstore.ErrNotFound
	}
	info, err := s.index.store.Info(ctx, part)
	if err != nil {
		return nil, err
	}
	if info.NARHash != r.hash || info.NARSize != r.size {
		return nil, narstore.ErrChanged
	}
	nar, err := s.index.store.Open(ctx, info)
	if err != nil {
		return nil, err
	}
	s.nars.Add(part, nar)
	s.index.records.touch(part)
	return nar, nil
}

// giveUp counts chunks of a path that were wrong, and forgets the path where
// that makes too many, or where it is gone.
func (s *Session) giveUp(ctx context.Context, part nix.HashPart, wrong int, err error) {
	s.index.failed.Inc()
	if ctx.Err() != nil || errors.Is(err, errStopped) {
		return
	}
	s.mu.Lock()
	s.wrong[part] += wrong
	forget := s.wrong[part] >= maxWrong
	s.mu.Unlock()
	if forget {
		s.index.forget(part)
	}
}

// Taken returns how many bytes were taken so far.
func (s *Session) Taken(how How) int64 { return s.taken[how].Load() }

// Learn says that the NAR is complete, so that what was taken is what could be.
func (s *Session) Learn() {
	if s.want.Size > 0 {
		s.index.learned.note(s.like, float64(s.Taken(BySum)+s.Taken(ByMaskedSum)+s.Taken(ByName))/float64(s.want.Size))
	}
}

// Close closes what is open. Takes under way may fail.
func (s *Session) Close() {
	s.opening.Lock()
	defer s.opening.Unlock()
	s.closed = true
	s.nars.Purge()
}
