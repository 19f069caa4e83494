package substituter

import (
	"context"
	"errors"
	"sync"
)

// windowRoom is how many bytes of a NAR are kept for clients that read it at
// once: 40 ms of a line of 100 MB/s, in which one may unpack a file. Sixteen
// NARs, as many as Nix asks for at once, have 64 MiB.
const windowRoom = 4 << 20

var (
	errOvertaken = errors.New("other clients are too far ahead")
	errNoClient  = errors.New("no client is left")
)

// window is the bytes of a NAR between whoever writes them and the clients that
// read them. The writer waits for the client that is furthest, and for no
// other: what one that falls behind still needs is spilled to a file. Where that
// is not possible, the client is overtaken.
type window struct {
	// whole is true if the writer writes once, and leaves the bytes alone after
	// that; they are all kept.
	whole bool

	mu      sync.Mutex
	changed *sync.Cond
	// segments are the bytes from from up to to, without a gap.
	segments []*segment
	from, to int64
	spilled  spill
	readers  map[*reader]struct{}
	ended    bool
	err      error // once it has ended: why not all bytes came
}

// segment is successive bytes. The window and each reader that is busy with
// them hold it.
type segment struct {
	offset int64
	data   []byte
	buffer *[pieceSize]byte // what data lies in, nil if that is not ours
	held   int
}

func (s *segment) release() {
	if s.held--; s.held == 0 && s.buffer != nil {
		buffers.Put(s.buffer)
	}
}

// newWindow returns a window of the bytes from an offset on.
func newWindow(from int64, whole bool, overflow *spool) *window {
	w := &window{
		whole: whole, from: from, to: from,
		spilled: spill{spool: overflow}, readers: make(map[*reader]struct{}),
	}
	w.changed = sync.NewCond(&w.mu)
	return w
}

// Write implements io.Writer. It fails when the window has ended.
func (w *window) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for done := 0; ; {
		switch {
		case w.ended:
			return done, errNoClient
		case done == len(p):
			return done, nil
		case w.whole:
			w.segments = append(w.segments, &segment{offset: w.to, data: p, held: 1})
			w.to += int64(len(p))
			done = len(p)
		case w.to-w.furthest() >= windowRoom:
			w.changed.Wait()
			continue
		default:
			done += w.add(p[done:])
		}
		w.changed.Broadcast()
	}
}

// add copies what fits into the last segment, and makes room for the next.
func (w *window) add(p []byte) int {
	var last *segment
	if n := len(w.segments); n > 0 && len(w.segments[n-1].data) < pieceSize {
		last = w.segments[n-1]
	} else {
		b := newBuffer()
		last = &segment{offset: w.to, data: b[:0], buffer: b, held: 1}
		w.segments = append(w.segments, last)
	}
	n := min(len(p), pieceSize-len(last.data))
	last.data = append(last.data, p[:n]...)
	w.to += int64(n)
	for furthest := w.furthest(); ; {
		first := w.segments[0]
		end := first.offset + int64(len(first.data))
		// Who is furthest may be in the middle of it.
		if w.to-end < windowRoom || end > furthest {
			break
		}
		w.segments = w.segments[1:]
		w.from = end
		if w.last() < w.from {
			w.spilled.add(first)
		}
		first.release()
	}
	return n
}

// last is where the last of the readers is.
func (w *window) last() int64 {
	last := w.to
	for r := range w.readers {
		last = min(last, r.next)
	}
	return last
}

// furthest is where the first of the readers is. Without any it is where the
// window begins.
func (w *window) furthest() int64 {
	furthest := w.from
	for r := range w.readers {
		furthest = max(furthest, r.next)
	}
	return furthest
}

// end says that nothing more will come: err is why, nil if all has come.
func (w *window) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ended, w.err = true, err
		w.changed.Broadcast()
	}
}

// begun reports whether any bytes have come.
func (w *window) begun() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to > w.from // some of them stay
}

// reader is a client's place in a window.
type reader struct {
	w    *window
	next int64 // the offset of what it reads next
	busy *segment
	// buffer is for what was spilled.
	buffer *[pieceSize]byte
}

// reader returns a place in the window, or nil if the bytes from the offset on
// are not, or not any more, to be had there.
func (w *window) reader(offset int64) *reader {
	w.mu.Lock()
	defer w.mu.Unlock()
	if offset < w.from && !w.spilled.has(offset) || w.ended && w.err != nil {
		return nil
	}
	r := &reader{w: w, next: offset}
	w.readers[r] = struct{}{}
	return r
}

// read returns the next bytes, which are good until the next call, none at the
// end. It waits for them until ctx ends, if its end wakes the window.
func (r *reader) read(ctx context.Context) ([]byte, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.leave()
	for {
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case r.next < r.w.from && r.w.spilled.has(r.next):
			return r.spilled()
		case r.next < r.w.from:
			return nil, errOvertaken
		case r.next < r.w.to:
			return r.take(), nil
		case r.w.ended:
			return nil, r.w.err
		}
		r.w.changed.Wait()
	}
}

// take takes what there is of a segment; w.mu is held.
func (r *reader) take() []byte {
	for _, s := range r.w.segments {
		if end := s.offset + int64(len(s.data)); r.next < end {
			r.busy = s
			s.held++
			data := s.data[r.next-s.offset:]
			r.next = end
			r.w.changed.Broadcast()
			return data
		}
	}
	panic("substituter: bytes of a window are missing")
}

// spilled reads what has left the window. It does so without holding up the
// others, although w.mu is held before and after.
func (r *reader) spilled() ([]byte, error) {
	from := &r.w.spilled
	n, at, file := min(pieceSize, from.to-r.next), r.next-from.base, from.file
	if r.buffer == nil {
		r.buffer = newBuffer()
	}
	r.w.mu.Unlock()
	_, err := file.ReadAt(r.buffer[:n], at)
	r.w.mu.Lock()
	if err != nil {
		return nil, errOvertaken
	}
	r.next += n
	return r.buffer[:n], nil
}

// leave gives back what was read; w.mu is held.
func (r *reader) leave() {
	if r.busy != nil {
		r.busy.release()
		r.busy = nil
	}
}

// close gives up the place.
func (r *reader) close() {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.leave()
	if r.buffer != nil {
		buffers.Put(r.buffer)
	}
	if delete(r.w.readers, r); len(r.w.readers) == 0 {
		r.w.spilled.close()
	}
	r.w.changed.Broadcast()
}

// wake has all who wait look again.
func (w *window) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed.Broadcast()
}
