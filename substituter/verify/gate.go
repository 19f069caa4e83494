package verify

import (
	"errors"
	"fmt"
	"io"

	"github.com/nar-p2p/nar-p2p/narstore/address"
)

// ErrMismatch says that the bytes are not the NAR that was signed.
var ErrMismatch = errors.New("verify: bytes do not match the NAR hash")

// ErrAddress says that the bytes are the NAR that the record names, but not
// the content that the store path is named after.
var ErrAddress = errors.New("verify: content does not match the content address")

// ClientError is an error of the writer behind a Gate. It says nothing about
// the bytes or their source.
type ClientError struct{ Err error }

func (e *ClientError) Error() string { return fmt.Sprintf("write to client: %v", e.Err) }

// Unwrap returns the writer's error.
func (e *ClientError) Unwrap() error { return e.Err }

// Range is a part of a NAR: the bytes from From up to, but not with, To.
type Range struct{ From, To int64 }

// Gate takes a NAR's bytes in order and passes those of a range on. The last
// part of the range is held back until the whole NAR has matched, its hash and
// where wanted its content address, whether or not the range reaches to the
// NAR's end: so what a client has completely is never wrong.
type Gate struct {
	w      io.Writer
	want   Range
	hold   int64 // offset from which bytes are held back
	held   []byte
	sent   int64
	digest *Digest
	// address is a second check, or nil.
	address  *address.Check
	cache    *Cache // nil: keep no states
	conflict bool
}

// NewGate returns a gate to w. The digest says where the bytes begin, and must
// not be beyond want.From. At least hold bytes are held back, or all of the
// range if that is shorter.
func NewGate(w io.Writer, digest *Digest, want Range, hold int64) *Gate {
	hold = min(hold, want.To-want.From)
	return &Gate{
		w: w, want: want, hold: want.To - hold, held: make([]byte, 0, hold),
		digest: digest,
	}
}

// Check makes the gate check the bytes against a content address as well. Its
// digest must begin with the NAR.
func (g *Gate) Check(c *address.Check) {
	if g.digest.Offset() > 0 {
		panic("verify: a content address can be checked from the first byte on only")
	}
	g.address = c
}

// Keep makes the gate save states of its digest on the way.
func (g *Gate) Keep(cache *Cache) { g.cache = cache }

// Conflict reports whether the bytes differ from an earlier reading of this
// NAR. Then some client holds a wrong prefix, and all kept states are gone.
func (g *Gate) Conflict() bool { return g.conflict }

// Digest returns the digest of all bytes so far.
func (g *Gate) Digest() *Digest { return g.digest }

// Sent is how many bytes were passed on. While it is 0 the client knows
// nothing of a mistake.
func (g *Gate) Sent() int64 { return g.sent }

// Write takes the bytes that come next. The error is ErrMismatch if they are
// more than the NAR has, or a ClientError.
func (g *Gate) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		offset := g.digest.Offset()
		if offset == g.digest.target.Size {
			return done, fmt.Errorf("%w: longer than %d bytes", ErrMismatch, offset)
		}
		step := min(Interval-offset%Interval, g.digest.target.Size-offset, int64(len(p)-done))
		piece := p[done : done+int(step)]
		_, _ = g.digest.Write(piece) // never fails
		if g.address != nil {
			_, _ = g.address.Write(piece) // never fails
		}
		g.keep()
		if err := g.pass(piece, offset); err != nil {
			return done, err
		}
		done += int(step)
	}
	return done, nil
}

func (g *Gate) keep() {
	if g.cache == nil || g.digest.Offset()%Interval != 0 || g.cache.keep(g.digest) {
		return
	}
	g.conflict = true
	g.cache.Drop(g.digest.target)
	g.cache = nil
}

// pass sends what of the piece at offset lies before the held part, and keeps
// what lies in it.
func (g *Gate) pass(piece []byte, offset int64) error {
	clip := func(from, to int64) []byte {
		from, to = max(from-offset, 0), min(to-offset, int64(len(piece)))
		if from >= to {
			return nil
		}
		return piece[from:to]
	}
	g.held = append(g.held, clip(g.hold, g.want.To)...)
	return g.send(clip(g.want.From, g.hold))
}

func (g *Gate) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := g.w.Write(p)
	g.sent += int64(n)
	if err != nil {
		return &ClientError{err}
	}
	return nil
}

// Verified reports whether the whole has matched the NAR hash. A resumed
// request does not match after a conflict: the client's prefix may be the other
// reading's.
func (g *Gate) Verified() bool { return g.digest.Matches() && (g.want.From == 0 || !g.conflict) }

// Finish passes on what was held back if the whole has matched, and returns
// ErrMismatch or ErrAddress otherwise.
func (g *Gate) Finish() error {
	switch {
	case !g.Verified():
		return ErrMismatch
	case g.address != nil && !g.address.Matches():
		return ErrAddress
	}
	return g.send(g.held)
}
