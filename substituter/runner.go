package substituter

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/throttle"
	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/substituter/plan"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

// maxPieces is how many pieces of a source are under way: one is read into,
// one waits, and one is hashed and written.
const maxPieces = 3

// buffers are those of pieces.
var buffers = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// runner is a source that runs: a goroutine of its own reads from the network
// and decompresses, while the gate hashes the piece before.
type runner struct {
	entry  *entry
	digest *verify.Digest // at the start; the source may make any use of it
	pieces chan<- piece
	wasted func(*entry, int)
	// cancel ends its stream, as what stalls does as well; drop ends it, and
	// release closes the stream.
	cancel, drop, release func()
	dropped, ended        chan struct{}
	free                  chan *[pieceSize]byte // nil where none was needed yet
	// line is what it comes over, where something bounds how fast.
	line *throttle.Line
	// waiting is since when the source has been waited for, in nanoseconds since
	// started; 0 while it is not. The line had been held up before for heldBefore.
	waiting, heldBefore atomic.Int64
	started             time.Time

	// What follows is the fetch's, and not the goroutine's.

	stream *stream // known from the first piece on
	// next is the offset of the first byte that has not come, and begun that at
	// which it began.
	next, begun int64
	// fed is true once the gate has taken bytes from it.
	fed   bool
	first time.Time // when its first byte came
	// bySum and byMaskedSum are the bytes for which it was given no credit, since
	// they came out of the local store.
	bySum, byMaskedSum int64
	// recent is what came of late, and judged what came since slow last judged it.
	recent, judged pace
	waited         time.Duration // for all that came
}

// piece is what a source has read, in a buffer that goes back to it, and what
// ended it.
type piece struct {
	from   *runner
	stream *stream
	buffer *[pieceSize]byte // nil if there is none
	data   []byte
	parts  []Source // whom data came from
	offset int64
	waited time.Duration
	err    error
}

// run opens a source behind what is in the digest and has it deliver until it
// is cancelled. Then it must be released.
func (f *fetch) run(ctx context.Context, e *entry) *runner {
	line := f.s.downloads.Line()
	ctx, cancel := context.WithCancel(throttle.With(ctx, line))
	ctx, span := tracing.Ask(ctx, "source")
	dropped, released := make(chan struct{}), make(chan struct{})
	digest := f.gate.Digest().Clone()
	r := &runner{
		entry: e, digest: digest, line: line, pieces: f.pieces, wasted: f.waste,
		cancel: cancel, dropped: dropped, drop: sync.OnceFunc(func() { close(dropped); cancel() }),
		release: sync.OnceFunc(func() { close(released) }),
		ended:   make(chan struct{}), free: make(chan *[pieceSize]byte, maxPieces), started: time.Now(), next: digest.Offset(), begun: digest.Offset(),
	}
	for range maxPieces {
		r.free <- nil
	}
	f.s.tasks.begin()
	go func() {
		defer f.s.tasks.end()
		defer close(r.ended)
		r.deliver(ctx, span, released)
	}()
	return r
}

// deliver reads until the NAR's end, or that of the stream.
func (r *runner) deliver(ctx context.Context, span tracing.Span, released <-chan struct{}) {
	p := piece{from: r, offset: r.digest.Offset()}
	size := r.digest.Target().Size
	if p.stream, p.err = r.entry.open(ctx, r.digest); p.err != nil {
		if lost := (*spoolError)(nil); errors.As(p.err, &lost) {
			r.wasted(r.entry, int(lost.bytes))
		}
		traceSource(span, r.entry, 0, p.err)
		r.send(p)
		return
	}
	begun := p.offset
	p.stream.endsBy(r.cancel)
	for p.offset < size && p.err == nil {
		select {
		case p.buffer = <-r.free:
		case <-r.dropped:
			p.err = context.Canceled
			continue
		}
		if p.buffer == nil {
			p.buffer = newBuffer()
		}
		begin, held := time.Now(), r.line.Held()
		r.heldBefore.Store(int64(held))
		r.waiting.Store(int64(begin.Sub(r.started)) + 1)
		var n int
		n, p.err = p.stream.read(p.buffer[:min(pieceSize, size-p.offset)], r.line)
		p.waited = max(time.Since(begin)-(r.line.Held()-held), 0)
		r.waiting.Store(0)
		p.data, p.parts = p.buffer[:n], p.stream.origins.next(n)
		p.offset += int64(n)
		if !r.send(p) {
			r.wasted(r.entry, n)
			break
		}
	}
	traceSource(span, r.entry, p.offset-begun, p.err)
	<-released
	r.wasted(r.entry, int(p.stream.unread(p.offset-begun)))
	p.stream.end()
	r.giveBack()
}

// send hands a piece over; false means that nobody wants it any more. The offset
// is then that of the piece's end.
func (r *runner) send(p piece) bool {
	p.offset -= int64(len(p.data))
	select {
	case r.pieces <- p:
		return true
	case <-r.dropped:
		return false
	}
}

func newBuffer() *[pieceSize]byte {
	b, ok := buffers.Get().(*[pieceSize]byte)
	if !ok {
		panic("substituter: pool of buffers holds something else")
	}
	return b
}

// reuse takes a piece's buffer back.
func (r *runner) reuse(p piece) {
	if p.buffer != nil {
		r.free <- p.buffer // which has room for all
	}
}

// giveBack leaves the buffers to others.
func (r *runner) giveBack() {
	for {
		select {
		case b := <-r.free:
			if b != nil {
				buffers.Put(b)
			}
		default:
			return
		}
	}
}

// got takes note of a piece.
func (r *runner) got(p piece) {
	r.stream = p.stream
	r.next = p.offset + int64(len(p.data))
	if len(p.data) == 0 {
		return
	}
	if r.first.IsZero() {
		r.first = time.Now()
	}
	r.waited += p.waited
	r.judged.add(len(p.data), p.waited)
	r.recent.add(len(p.data), p.waited)
	if r.recent.waited > paceMemory {
		r.recent.bytes /= 2
		r.recent.waited /= 2
	}
}

// pace is bytes and the time spent waiting for them.
type pace struct {
	bytes  int64
	waited time.Duration
}

// paceMemory is the time of waiting after which a pace forgets half of what it
// was made of.
const paceMemory = 4 * time.Second

func (p *pace) add(n int, waited time.Duration) {
	p.bytes += int64(n)
	p.waited += waited
}

// slow reports whether less than slowBytes came in stallTime. The time in which
// the client did not read does not count.
func (r *runner) slow() bool {
	if r.judged.waited < stallTime {
		return false
	}
	slow := r.judged.bytes < slowBytes
	r.judged = pace{}
	return slow
}

// state is how the source is doing.
func (r *runner) state() plan.Runner {
	running := time.Since(r.started)
	s := plan.Runner{
		Expectation: r.entry.expected, Next: r.next, Running: running,
		Bytes: r.recent.bytes, Waited: r.recent.waited,
	}
	if !r.first.IsZero() {
		s.Delivering = max(time.Since(r.first), 1)
	}
	if since := r.waiting.Load(); since > 0 {
		held := r.line.Held() - time.Duration(r.heldBefore.Load())
		s.Silent = max(running-time.Duration(since-1)-held, 0)
	}
	return s
}
