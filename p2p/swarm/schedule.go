package swarm

import (
	"time"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

const (
	// runSize is the length in bytes up to which chunks are put into one request.
	runSize = 1 << 20
	// stolenSize is the like for chunks that are asked for a second time.
	stolenSize = 256 << 10
	// A chunk is asked for a second time where that is likely to bring it in less
	// than a stealGain-th of the time that the first still needs, and earlier by at
	// least stealLead: what comes twice is a waste.
	stealGain = 2
	stealLead = 20 * time.Millisecond
	// stealShare is the part of a window, as a divisor, that is left to chunks that
	// are asked for a second time: there must be room for the one that holds up
	// the reader when the window is full.
	stealShare = 8
)

// item is a chunk that a worker was asked for, and the room that it takes.
type item struct {
	index int
	use   budget.Use
	room  int64
}

// run is successive chunks to be asked for with one request.
type run struct {
	chunks []chunk.Chunk
	items  []item
	// left is how many bytes more it may have.
	left int64
}

// bytes is how much is asked for with the run.
func (r *run) bytes() (n int64) {
	for i := range r.items {
		n += int64(r.chunks[i].Length)
	}
	return n
}

// take gives a worker a run to ask for, of most bytes if that is not 0 and of one
// chunk in any case, or an empty one where there is none for it now: first chunks that somebody has failed to send, then those that nobody
// was asked for, and where there are none, or no room for them, chunks that
// others are slow with.
func (w *window) take(worker *worker, most int64) run {
	w.mu.Lock()
	defer w.mu.Unlock()
	worker.starved = false
	target := worker.flow.target()
	r := run{left: min(target-worker.owed, runSize)}
	if w.over() || worker.stalled || worker.owed > 0 && r.left < min(target/4, runSize) {
		return r
	}
	if most > 0 {
		r.left = min(r.left, most)
	}
	now := time.Now()
	idle := worker.owed == 0
	for i := w.head; i < w.next; i++ {
		if w.orphan(i) {
			if !w.add(worker, &r, i, now) {
				break
			}
		} else if len(r.items) > 0 {
			break
		}
	}
	w.passLocal()
	for len(r.items) == 0 || r.items[len(r.items)-1].index == w.next-1 {
		if w.next >= w.decided || w.local.has(w.next) || !w.add(worker, &r, w.next, now) {
			break
		}
	}
	if len(r.items) == 0 {
		r.left = min(r.left, stolenSize)
		for i := w.head; i < w.next; i++ {
			if w.late(worker, i, now) {
				if !w.add(worker, &r, i, now) {
					break
				}
			} else if len(r.items) > 0 {
				break
			}
		}
	}
	if worker.starved = len(r.items) == 0; idle && !worker.starved {
		worker.since, worker.moved = now, now
		worker.flow.resume(now)
	}
	return r
}

// over reports whether nothing is to be asked for any more; mu is held.
func (w *window) over() bool {
	return w.closed || w.err != nil || w.complete && w.missing == 0
}

// orphan reports whether a chunk is missing and nobody is likely to send it; mu
// is held.
func (w *window) orphan(i int) bool {
	s := &w.slots[i-w.head]
	if s.data != nil || s.origin == fromStore {
		return false
	}
	for _, a := range s.asks {
		if !a.worker.stalled {
			return false
		}
	}
	return true
}

// late reports whether a chunk is likely to come much earlier from this worker
// than from the one that was asked for it; mu is held.
func (w *window) late(worker *worker, i int, now time.Time) bool {
	s := &w.slots[i-w.head]
	if s.data != nil || s.origin == fromStore {
		return false
	}
	var first *ask
	for j := range s.asks {
		switch a := &s.asks[j]; {
		case a.worker == worker:
			return false
		case a.worker.stalled:
		case first != nil:
			return false
		default:
			first = a
		}
	}
	if first == nil {
		return true
	}
	ours, known := worker.flow.needs(worker.owed + int64(w.known[i].Length))
	if !known {
		return false
	}
	ours += worker.flow.rtt
	// It takes a round trip, and the longer nothing has come the longer it will
	// take, whatever the rate was before.
	theirs, _ := first.worker.flow.needs(first.end - first.worker.arrived)
	theirs = max(theirs, first.at.Add(first.worker.flow.rtt).Sub(now), now.Sub(first.worker.moved))
	return theirs > stealGain*ours && theirs > ours+stealLead
}

// add adds a chunk to a run if it fits and there is room for it; mu is held.
func (w *window) add(worker *worker, r *run, i int, now time.Time) bool {
	length := int64(w.known[i].Length)
	if len(r.items) > 0 && (length > r.left || len(r.items) == exchange.MaxRunChunks) {
		return false
	}
	again := i < w.next && len(w.slots[i-w.head].asks) > 0
	use, ok := w.reserve(i, again)
	if !ok {
		return false
	}
	if i == w.next {
		w.slots = append(w.slots, slot{})
		w.next++
	}
	it := item{index: i, use: use, room: room(int(length))}
	worker.owed += length
	worker.wanted += length
	worker.queue = append(worker.queue, it)
	s := &w.slots[i-w.head]
	s.asks = append(s.asks, ask{worker: worker, end: worker.wanted, at: now})
	if len(r.items) == 0 {
		r.chunks = w.known[i : i+1 : i+1]
	} else {
		r.chunks = w.known[i-len(r.items) : i+1 : i+1]
	}
	r.items = append(r.items, it)
	r.left -= length
	return true
}

// reserve takes room for a chunk, and says for what use; again is for one that
// was asked for before; mu is held.
func (w *window) reserve(i int, again bool) (budget.Use, bool) {
	n, limit := room(w.known[i].Length), w.memory.window
	if !again {
		limit -= limit / stealShare
	}
	behind := w.known[i].Offset + int64(w.known[i].Length) - w.known[w.head].Offset
	use := budget.Window
	least := behind+int64(i-w.head+1)*bufferStep <= leastWindow
	switch {
	case least && !again:
		use = budget.Least
	case w.held+w.asked+n <= limit && w.memory.TryAcquire(budget.Window, n):
	case least: // whoever was asked before may have died
		use = budget.Least
	default:
		return use, false
	}
	w.asked += n
	return use, true
}

// arrived takes note of a chunk that has come to a worker and is to be checked.
func (w *window) arrived(worker *worker, it item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	length := int64(w.known[it.index].Length)
	worker.stalled, worker.moved = false, now
	if worker.arrived == 0 {
		worker.flow.trip(now.Sub(worker.since))
	}
	worker.arrived += length
	worker.owed -= length
	worker.flow.arrived(now, length)
	if worker.owed == 0 {
		worker.flow.pause(now)
	}
	worker.poke()
}

// join takes note of a worker.
func (w *window) join(worker *worker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.workers = append(w.workers, worker)
}

// leave takes all that it was asked for from a worker that has stopped.
func (w *window) leave(gone *worker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range gone.queue {
		if i := it.index - w.head; i >= 0 && i < len(w.slots) {
			w.slots[i].asks = without(w.slots[i].asks, gone)
		}
		w.release(it.use, it.room)
	}
	gone.queue, gone.owed = nil, 0
	for i, worker := range w.workers {
		if worker == gone {
			w.workers = append(w.workers[:i], w.workers[i+1:]...)
			break
		}
	}
	w.wakeAll()
}

// sweep takes note of workers that say nothing although something is awaited of
// them, so that others are asked for it, and has those look that have nothing to
// do.
func (w *window) sweep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, worker := range w.workers {
		worker.stalled = worker.owed > 0 && time.Since(worker.heard()) > worker.flow.patience()
	}
	w.wakeIdle()
}

// state is what a window tells of itself.
type state struct {
	// rate is what all workers bring, in bytes a second, left how much is to come.
	rate float64
	left int64
	// stalled counts the workers that have, delivering those that brought
	// something.
	stalled, delivering int
	started             bool
}

func (w *window) state() (s state) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.left, s.started = w.size-w.first-w.tally.verified-w.tally.taken-w.local.owed(w), w.started
	for _, worker := range w.workers {
		switch {
		case worker.stalled:
			s.stalled++
		case worker.delivered > 0:
			s.delivering++
			s.rate += worker.flow.rate
		}
	}
	return s
}
