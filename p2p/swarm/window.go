package swarm

import (
	"io"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// leastWindow is the part of a window behind the reader, in bytes, that a
// transfer has in any case: it goes on however little memory there is.
const leastWindow = 1 << 20

// memory is what windows take their room from.
type memory struct {
	*budget.Budget
	buffers
	// window bounds one of them, in bytes.
	window int64
}

// slot is a chunk that was asked for and is not read yet.
type slot struct {
	// data is the verified chunk, nil until it is there.
	data []byte
	// use is where the room of data comes from.
	use budget.Use
	// asks are those who may still send it.
	asks []ask
	// from is its sender, where it is a peer.
	from peer.ID
	// origin is who data is from; while there is none, fromStore says that it is to
	// be taken from this machine's store, and nobody is to be asked.
	origin origin
}

// ask is a chunk that a worker was asked for.
type ask struct {
	worker *worker
	// end is up to where the worker will have sent what it was asked for when it
	// has sent this, in bytes.
	end int64
	at  time.Time
}

// window is the part of a NAR between the reader and what was never asked for.
// It says who is to ask for what, and gives the bytes to the reader in order.
type window struct {
	memory *memory
	// first and size are the range that is read, in bytes.
	first, size int64
	// done is closed when all chunks are there, or none is wanted any more.
	done chan struct{}

	mu sync.Mutex
	// readable is for who reads, and for who waits for the start.
	readable *sync.Cond
	// known are the chunks known so far; slots are for known[head:next].
	known      []chunk.Chunk
	head, next int
	slots      []slot
	// complete says that no more chunks will be known: the manifest is confirmed.
	complete bool
	// held and asked are the room of what is there and of what is to come, in
	// bytes.
	held, asked int64
	workers     []*worker
	// decided is how many chunks may be asked for: of the others it is not known
	// yet whether they lie in this machine's store.
	decided int
	local   *local
	// read is the offset of the next byte to be read.
	read int64
	// missing counts the chunks known that are not there yet.
	missing int
	tally   tally
	// started says that a chunk was verified.
	started bool
	// err is why there will be no more bytes; closed that none is wanted.
	err    error
	closed bool
}

// tally counts the bytes of a transfer.
type tally struct {
	// sources are those verified and used, by their sender.
	sources map[peer.ID]int64
	// via is the way that those of a sender took, the last one if they were several.
	via map[peer.ID]string
	// handed is whom those came from that were read, in their order.
	handed handed
	// verified is their sum; wasted came and were of no use.
	verified, wasted int64
	// taken are from this machine's store; passed is what of each origin has been
	// read.
	taken  int64
	passed [origins]int64
}

func newWindow(m *memory, want Want, l *local) *window {
	w := &window{
		local:  l,
		memory: m, first: want.Offset, size: want.Size, read: want.Offset,
		done: make(chan struct{}), tally: tally{sources: make(map[peer.ID]int64), via: make(map[peer.ID]string)},
	}
	w.readable = sync.NewCond(&w.mu)
	return w
}

// extend takes the chunks known so far, which begin with those known before.
// The window does not change them.
// Parts are the hash parts that they name.
func (w *window) extend(known []chunk.Chunk, parts []nix.HashPart) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := len(w.known)
	w.known = known
	w.local.extended(w, parts)
	for _, c := range known[before:] {
		if c.Offset+int64(c.Length) <= w.first {
			w.head++
			w.next++
		} else {
			w.missing++
		}
	}
	w.wakeAll()
}

// confirm says that all chunks are known.
func (w *window) confirm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.complete = true
	w.finish()
	w.wakeAll()
}

// finish ends the fetching where all is there; mu is held.
func (w *window) finish() {
	if w.complete && w.missing == 0 || w.closed || w.err != nil {
		select {
		case <-w.done:
		default:
			close(w.done)
		}
	}
	w.readable.Broadcast()
}

// wakeAll makes all workers look for something to ask; mu is held.
func (w *window) wakeAll() {
	for _, worker := range w.workers {
		worker.poke()
	}
	w.local.poke()
}

// fail says that there will be no more bytes than those verified.
func (w *window) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.finish()
	w.wakeAll()
}

// deliver puts a verified chunk into its slot, if it is still wanted.
func (w *window) deliver(worker *worker, it item, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	worker.resolve(it)
	i := it.index - w.head
	if i < 0 || w.closed || w.slots[i].data != nil {
		w.tally.wasted += int64(len(data))
		w.release(it.use, it.room)
		w.memory.put(data)
		return
	}
	s := &w.slots[i]
	s.data, s.use, s.origin, s.from = data, it.use, fromPeer, worker.id
	s.asks = without(s.asks, worker)
	w.asked -= it.room
	w.held += it.room
	w.started = true
	w.missing--
	w.tally.verified += int64(len(data))
	w.tally.sources[worker.id] += int64(len(data))
	w.tally.via[worker.id] = worker.via
	worker.delivered += int64(len(data))
	if worker.first.IsZero() {
		worker.first = time.Now()
	}
	if i == 0 || w.missing == 0 {
		w.finish()
	}
}

// waste counts bytes that came and were of no use.
func (w *window) waste(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally.wasted += n
}

// release gives back room of what was asked for; mu is held.
func (w *window) release(use budget.Use, n int64) {
	w.asked -= n
	w.giveBack(use, n)
	w.wakeAll()
}

func (w *window) giveBack(use budget.Use, n int64) {
	if use != budget.Least { // that is taken once, for as long as the transfer lasts
		w.memory.Release(use, n)
	}
}

// awaitStart waits for the first verified chunk.
func (w *window) awaitStart() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.started && w.err == nil && !w.closed {
		w.readable.Wait()
	}
	switch {
	case w.started:
		return nil
	case w.closed:
		return errClosed
	default:
		return w.err
	}
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
		w.readable.Wait()
	}
}

// readHead copies what is there of the first chunks and drops those that are
// read; mu is held.
func (w *window) readHead(p []byte) (n int) {
	for n < len(p) && len(w.slots) > 0 && w.slots[0].data != nil {
		c, s := &w.known[w.head], &w.slots[0]
		copied := copy(p[n:], s.data[max(w.read-c.Offset, 0):])
		n += copied
		w.tally.passed[s.origin] += int64(copied)
		w.tally.handed.add(s, int64(copied))
		w.read += int64(copied)
		if w.read < c.Offset+int64(c.Length) {
			break
		}
		w.memory.put(s.data)
		w.held -= room(c.Length)
		w.giveBack(s.use, room(c.Length))
		w.slots[0] = slot{}
		w.slots = w.slots[1:]
		w.head++
		w.wakeIdle()
	}
	return n
}

// wakeIdle makes those workers look for something to ask that have found
// nothing; mu is held.
func (w *window) wakeIdle() {
	for _, worker := range w.workers {
		if worker.starved {
			worker.poke()
		}
	}
	w.local.poke()
}

// close ends all reading, and all asking.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	for i := range w.slots {
		if s := &w.slots[i]; s.data != nil {
			w.giveBack(s.use, room(len(s.data)))
			w.memory.put(s.data)
		}
	}
	w.slots = nil
	w.finish()
}

func without(asks []ask, gone *worker) []ask {
	return slices.DeleteFunc(asks, func(a ask) bool { return a.worker == gone })
}
