package swarm

import (
	"context"
	"sync"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
)

// What of a NAR lies in this machine's own store, in another path, is taken from
// there. A scout decides, chunk by chunk as the manifest comes in, whether it
// does; nobody is asked for a chunk before. Readers take those that do, in order
// and just ahead of who reads. One that turns out not to be there is asked for
// like any other.

const (
	// localReaders is how many chunks are taken at once: the hashing of one goes on
	// beside the reading of another.
	localReaders = 2
	// localAhead is how far chunks are taken ahead of who reads, in bytes: they come
	// faster than anybody reads.
	localAhead = 4 << 20
	// scoutBatch is how many chunks are looked for at once.
	scoutBatch = 128
	// scoutPatience is how long, all together, chunks are not asked for because a
	// relative that may have them is still being indexed: less than that for which
	// a source may be silent. A second is added for each scoutRate bytes of the NAR,
	// a tenth of the time in which a line of 1 Gbit/s brings them.
	scoutPatience = 100 * time.Millisecond
	scoutRate     = 1e9
)

// origin is where a chunk is from.
type origin uint8

const (
	fromPeer origin = iota
	fromStore
	fromStoreMasked // with other hash parts
	origins
)

// local is the part of a window that is taken from the store. It may be nil:
// then nothing is. What is in it the window's mu guards.
type local struct {
	session *reuse.Session
	// wakeScout and wakeReader tell that there may be something to do.
	wakeScout, wakeReader chan struct{}

	parts []nix.HashPart
	// places are where the chunks lie that are there and were not taken yet, left
	// their bytes.
	places map[int]reuse.Place
	left   int64
	// cursor is the first chunk that a reader may take next.
	cursor int
}

func newLocal(session *reuse.Session) *local {
	if session == nil || session.Vain() {
		return nil
	}
	return &local{
		session: session, places: make(map[int]reuse.Place),
		wakeScout: make(chan struct{}, 1), wakeReader: make(chan struct{}, localReaders),
	}
}

// extended takes note that more chunks are known; the window's mu is held.
func (l *local) extended(w *window, parts []nix.HashPart) {
	if l == nil {
		w.decided = len(w.known)
		return
	}
	l.parts = parts
	wake(l.wakeScout)
}

// poke makes the readers look for something to take; the window's mu is held.
func (l *local) poke() {
	if l != nil && len(l.places) > 0 {
		wake(l.wakeReader)
	}
}

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// has reports whether a chunk is to be taken from the store; the window's mu is
// held.
func (l *local) has(i int) bool {
	if l == nil {
		return false
	}
	_, ok := l.places[i]
	return ok
}

// owed is how many bytes are still to be taken from the store, as far as that is
// decided, and of the others is to be expected; the window's mu is held.
func (l *local) owed(w *window) int64 {
	if l == nil {
		return 0
	}
	undecided := w.size - w.first
	if w.decided > 0 {
		last := &w.known[w.decided-1]
		undecided = w.size - max(last.Offset+int64(last.Length), w.first)
	}
	return l.left + int64(l.session.Expected()*float64(undecided))
}

// run decides and takes until the window is done or ctx ends.
func (l *local) run(ctx context.Context, w *window, running *sync.WaitGroup) {
	if l == nil {
		return
	}
	running.Go(func() { l.scout(ctx, w) })
	for range localReaders {
		running.Go(func() { l.read(ctx, w) })
	}
}

// scout decides which chunks are taken from the store.
func (l *local) scout(ctx context.Context, w *window) {
	patience := scoutPatience + time.Duration(float64(w.size)/scoutRate*float64(time.Second))
	places := make([]reuse.Place, scoutBatch)
	for ctx.Err() == nil {
		first, chunks, parts := w.undecided()
		clear(places)
		l.session.Find(chunks, places[:len(chunks)])
		n := 0
		var later <-chan struct{}
		for n < len(chunks) {
			if !places[n].Found() && patience > 0 {
				var settled bool
				if settled, later = l.session.Settled(chunks[n].Offset + int64(chunks[n].Length)); !settled {
					break
				}
			}
			places[n] = l.session.Guess(ctx, places[n], &chunks[n], parts)
			n++
		}
		w.decide(first, places[:n])
		if n == scoutBatch {
			continue
		}
		var done bool
		if n < len(chunks) {
			done = l.await(ctx, w, later, &patience)
		} else {
			done = l.sleep(ctx, w)
		}
		if done {
			return
		}
	}
}

// sleep waits until there may be more chunks to decide, and reports whether
// there will be none.
func (l *local) sleep(ctx context.Context, w *window) (done bool) {
	select {
	case <-l.wakeScout:
		return false
	case <-w.done:
	case <-ctx.Done():
	}
	return true
}

// await waits until more of a relative is indexed, for as long as patience
// lasts, and reports whether nobody wants to know any more.
func (l *local) await(ctx context.Context, w *window, later <-chan struct{}, patience *time.Duration) (done bool) {
	began := time.Now()
	timeout := time.NewTimer(*patience)
	defer timeout.Stop()
	select {
	case <-later:
	case <-timeout.C:
	case <-w.done:
		return true
	case <-ctx.Done():
		return true
	}
	*patience -= time.Since(began)
	return false
}

// undecided returns chunks that are to be decided next, and the index of the
// first, and the hash parts that they name. They do not change.
func (w *window) undecided() (first int, chunks []chunk.Chunk, parts []nix.HashPart) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.decided = max(w.decided, w.head) // what lies before the start is not read
	return w.decided, w.known[w.decided:min(len(w.known), w.decided+scoutBatch)], w.local.parts
}

// decide says where chunks lie, or that they are to be asked for.
func (w *window) decide(first int, places []reuse.Place) {
	if len(places) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, p := range places {
		if p.Found() {
			w.local.places[first+i] = p
			w.local.left += int64(w.known[first+i].Length)
		}
	}
	w.decided = first + len(places)
	w.passLocal()
	w.wakeAll()
}

// passLocal goes past the next chunks that are taken from the store, up to the
// end of the window, so that those behind them can be asked for; mu is held.
func (w *window) passLocal() {
	for w.next < w.decided && w.local.has(w.next) && w.known[w.next].Offset-w.known[w.head].Offset < w.memory.window {
		w.slots = append(w.slots, slot{origin: fromStore})
		w.next++
	}
}

// takes is a chunk that a reader is to take.
type takes struct {
	item

	chunk *chunk.Chunk
	place reuse.Place
	parts []nix.HashPart
}

// takeLocal returns a chunk to be taken from the store, if there is one and room
// for it.
func (w *window) takeLocal() (t takes, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.local
	if w.over() {
		return t, false
	}
	w.passLocal()
	for i := max(l.cursor, w.head); i < w.next && w.known[i].Offset-w.known[w.head].Offset < localAhead; i++ {
		place, mine := l.places[i]
		if !mine {
			l.cursor = i + 1
			continue
		}
		use, room := w.reserve(i, false)
		if !room {
			return t, false
		}
		l.cursor = i + 1
		return takes{
			item:  item{index: i, use: use, room: w.roomOf(i)},
			chunk: &w.known[i], place: place, parts: l.parts,
		}, true
	}
	return t, false
}

func (w *window) roomOf(i int) int64 { return room(w.known[i].Length) }

// read takes chunks from the store.
func (l *local) read(ctx context.Context, w *window) {
	for {
		t, ok := w.takeLocal()
		if !ok {
			select {
			case <-l.wakeReader:
				continue
			case <-w.done:
				return
			case <-ctx.Done():
				return
			}
		}
		data := w.memory.get(t.chunk.Length)
		how, err := l.session.Take(ctx, t.place, t.chunk, t.parts, data)
		w.taken(t, data, how, err)
	}
}

// taken puts a chunk that was taken into its slot, or has it asked for where it
// could not be.
func (w *window) taken(t takes, data []byte, how reuse.How, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.local.places[t.index]; ok {
		delete(w.local.places, t.index)
		w.local.left -= int64(len(data))
	}
	i := t.index - w.head
	if err != nil || w.closed || i < 0 || w.slots[i].data != nil {
		if err != nil && i >= 0 && i < len(w.slots) {
			w.slots[i].origin = fromPeer
		}
		w.memory.put(data)
		w.release(t.use, t.room)
		return
	}
	s := &w.slots[i]
	s.data, s.use, s.origin = data, t.use, fromStore
	if how != reuse.BySum {
		s.origin = fromStoreMasked
	}
	w.asked -= t.room
	w.held += t.room
	w.started = true
	w.missing--
	w.tally.taken += int64(len(data))
	if i == 0 || w.missing == 0 {
		w.finish()
	}
}

// reuse begins to look for what of a NAR is in the store.
func (s *Swarm) reuse(ctx context.Context, want Want) *reuse.Session {
	if s.cfg.Reuse == nil {
		return nil
	}
	return s.cfg.Reuse.Begin(ctx, reuse.Want{
		Path: want.Path, Hash: want.Hash, Size: want.Size, References: want.References, Strangers: want.Strangers,
	})
}

// keepChunks tells that the manifest in use is that of the NAR.
func (t *Transfer) keepChunks(a *attempt) {
	if t.session == nil {
		return
	}
	a.window.mu.Lock()
	known, complete := a.window.known, a.window.complete
	a.window.mu.Unlock()
	if complete {
		t.swarm.cfg.Reuse.Fetched(t.want.Path, t.want.Hash, known)
	}
}

// endReuse ends what takes chunks from the store.
func (t *Transfer) endReuse() {
	if t.session == nil {
		return
	}
	w := t.attempt().window
	w.mu.Lock()
	whole := w.first == 0 && w.read == w.size
	w.mu.Unlock()
	if whole {
		t.session.Learn()
	}
	t.session.Close()
}

// Reused returns how many of the bytes that were read so far came from the store
// as they were, and how many with other hash parts.
func (t *Transfer) Reused() (bySum, byMaskedSum int64) {
	w := t.attempt().window
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tally.passed[fromStore], w.tally.passed[fromStoreMasked]
}
