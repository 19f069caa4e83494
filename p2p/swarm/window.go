package swarm

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

// run is successive chunks that are asked for, filled and read together.
type run struct {
	chunks []chunk.Chunk
	buf    *[]byte
	// owner is the session that fills the run, nil where none does.
	owner *exchange.Session
	// verified counts the chunks that are there, filled their bytes. The owner
	// writes behind filled without the window's lock.
	verified, filled int
}

func (r *run) offset() int64 { return r.chunks[0].Offset }

func (r *run) end() int64 {
	last := &r.chunks[len(r.chunks)-1]
	return last.Offset + int64(last.Length)
}

func (r *run) full() bool { return r.verified == len(r.chunks) }

// room returns where the next chunk belongs.
func (r *run) room() []byte {
	return (*r.buf)[r.filled : r.filled+r.chunks[r.verified].Length]
}

// window is the part of a NAR between the reader and what was never asked for.
// It gives runs to workers and bytes to the reader, in order.
type window struct {
	budget *budget
	// first and size are the range that is read, in bytes.
	first, size int64

	mu      sync.Mutex
	changed *sync.Cond
	// known are the chunks known so far, of which the first next are in a run or
	// before the range.
	known []chunk.Chunk
	next  int
	// complete says that no more chunks will be known: the manifest is confirmed.
	complete bool
	// runs cover the NAR without a gap, from before read on.
	runs []*run
	// read is the offset of the next byte to be read.
	read int64
	// started says that a chunk was verified.
	started bool
	sources map[peer.ID]*source
	// err is why there will be no more bytes; closed that none is wanted.
	err    error
	closed bool
}

// source is what a peer has sent: how many verified bytes, and when the first.
type source struct {
	bytes int64
	first time.Time
}

func newWindow(b *budget, want Want) *window {
	w := &window{budget: b, first: want.Offset, size: want.Size, read: want.Offset, sources: make(map[peer.ID]*source)}
	w.changed = sync.NewCond(&w.mu)
	return w
}

// extend takes the chunks known so far, which begin with those known before.
// The window does not change them.
func (w *window) extend(known []chunk.Chunk) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = known
	for w.next < len(known) && known[w.next].Offset+int64(known[w.next].Length) <= w.first {
		w.next++
	}
	w.changed.Broadcast()
}

// confirm says that all chunks are known.
func (w *window) confirm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.complete = true
	w.changed.Broadcast()
}

// restart forgets all chunks, for another manifest. It reports whether that is
// still possible: once a chunk was verified it is not.
func (w *window) restart() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started {
		return false
	}
	w.drop()
	w.known, w.next, w.complete = nil, 0, false
	return true
}

func (w *window) drop() {
	for _, r := range w.runs {
		w.budget.give(r.buf)
	}
	w.runs = nil
}

// take gives the owner a run to fill: the first one that nobody fills. It waits
// for chunks to become known and for room. The error is io.EOF where all is
// given away.
func (w *window) take(ctx context.Context, owner *exchange.Session) (*run, error) {
	defer context.AfterFunc(ctx, w.wake)()
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if err := w.err; err != nil {
			return nil, err
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if r := w.idle(); r != nil {
			r.owner = owner
			return r, nil
		}
		if w.complete && w.next == len(w.known) {
			return nil, io.EOF
		}
		w.changed.Wait()
	}
}

// idle returns the first run that is neither full nor filled by anybody, or nil.
func (w *window) idle() *run {
	for _, r := range w.runs {
		if r.owner == nil && !r.full() {
			return r
		}
	}
	next := w.known[w.next:]
	if len(next) == 0 || len(w.runs) == maxRuns || !w.budget.take(len(w.runs) == 0) {
		return nil
	}
	n, size := 0, 0
	for n < min(len(next), exchange.MaxRunChunks) && size+next[n].Length <= runSize {
		size += next[n].Length
		n++
	}
	r := &run{chunks: next[:n:n], buf: w.budget.buffer(size)}
	w.next += n
	w.runs = append(w.runs, r)
	return r
}

// wake makes those who wait look again.
func (w *window) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed.Broadcast()
}

// deliver says that the run's next chunk is in its room, verified.
func (w *window) deliver(r *run, from peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := r.chunks[r.verified].Length
	r.verified++
	r.filled += n
	w.started = true
	if w.sources[from] == nil {
		w.sources[from] = &source{first: time.Now()}
	}
	w.sources[from].bytes += int64(n)
	w.changed.Broadcast()
}

// received returns how many verified bytes a peer has sent, and when it began.
func (w *window) received(from peer.ID) (bytes int64, first time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.sources[from]; s != nil {
		return s.bytes, s.first
	}
	return 0, time.Time{}
}

// abandon takes all runs from an owner that has stopped.
func (w *window) abandon(owner *exchange.Session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.runs {
		if r.owner == owner {
			r.owner = nil
		}
	}
	w.changed.Broadcast()
}

// fail says that there will be no more bytes than those verified.
func (w *window) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.changed.Broadcast()
}

// awaitStart waits for the first verified chunk.
func (w *window) awaitStart() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.started && w.err == nil {
		w.changed.Wait()
	}
	if w.started {
		return nil
	}
	return w.err
}

// Read reads the next bytes. What is verified can still be read after a
// failure.
func (w *window) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch n := w.readHead(p); {
		case w.closed:
			return 0, errClosed
		case n > 0 || len(p) == 0:
			return n, nil
		case w.read == w.size && w.complete:
			return 0, io.EOF
		case w.err != nil:
			return 0, w.err
		}
		w.changed.Wait()
	}
}

// readHead copies what is there of the first run and drops the run when it is
// read.
func (w *window) readHead(p []byte) int {
	if len(w.runs) == 0 {
		return 0
	}
	r := w.runs[0]
	n := copy(p, (*r.buf)[min(int(w.read-r.offset()), r.filled):r.filled])
	w.read += int64(n)
	if w.read == r.end() {
		w.runs = w.runs[1:]
		w.budget.give(r.buf)
		w.changed.Broadcast()
	}
	return n
}

// close ends all reading. No worker may be left.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.drop()
	w.changed.Broadcast()
}
