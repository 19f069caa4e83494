package substituter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

// race starts the sources of a plan one after the other, each when those
// before have failed or are late. The first that delivers bytes wins; the
// others are cancelled.
type race struct {
	f       *fetch
	queue   []*entry
	running map[*entry]context.CancelFunc
	// attempts come from one goroutine for each source, until decided.
	attempts chan attempt
	decided  chan struct{}
	late     *time.Timer
}

// attempt is a source's stream with its first piece, or its failure.
type attempt struct {
	from *entry
	st   *stream
	err  error
}

// next returns a stream from the gate's offset on.
func (f *fetch) next(ctx context.Context) (*stream, error) {
	r := &race{
		f: f, queue: slices.Clone(f.plan), running: make(map[*entry]context.CancelFunc),
		attempts: make(chan attempt), decided: make(chan struct{}), late: time.NewTimer(time.Hour),
	}
	defer r.late.Stop()
	// What has just broken off goes to the end of the queue.
	slices.SortStableFunc(r.queue, func(a, b *entry) int { return cmp.Compare(a.tries, b.tries) })
	late := explain.Stopped
	defer func() {
		close(r.decided)
		for e, cancel := range r.running {
			cancel()
			f.report.stop(e, late, nil)
		}
	}()
	errs := []error{errNoSource}
	for r.start(ctx); len(r.running) > 0; {
		select {
		case a := <-r.attempts:
			cancel := r.running[a.from]
			delete(r.running, a.from)
			if a.err == nil {
				late = explain.Late
				f.report.won(a.from)
				return a.st, nil
			}
			cancel()
			f.report.stop(a.from, explain.Unavailable, a.err)
			f.failed(a)
			// Not %w: failed has drawn the conclusions, and what the gate has let
			// through is another matter.
			errs = append(errs, fmt.Errorf("%s: %v", a.from.kind(), a.err))
			r.start(ctx)
		case <-r.late.C:
			r.start(ctx)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, errors.Join(errs...)
}

// start starts the next source.
func (r *race) start(ctx context.Context) {
	for len(r.queue) > 0 {
		e := r.queue[0]
		r.queue = r.queue[1:]
		if e.tries == maxTries {
			continue
		}
		e.tries++
		own, cancel := context.WithCancel(ctx)
		r.running[e] = cancel
		r.f.report.start(e)
		r.f.s.tasks.begin()
		go r.try(own, cancel, e, r.f.gate.Digest().Clone())
		break
	}
	if len(r.queue) > 0 {
		r.late.Reset(r.queue[0].after)
	}
}

func (r *race) try(ctx context.Context, cancel context.CancelFunc, e *entry, digest *verify.Digest) {
	defer r.f.s.tasks.end()
	st, err := e.open(ctx, digest)
	if err == nil {
		inner := st.cancel
		st.from, st.cancel = e, cancel
		if inner != nil {
			st.cancel = func() { inner(); cancel() }
		}
		if err = st.prefetch(); err != nil {
			st.end()
		}
	}
	select {
	case r.attempts <- attempt{e, st, err}:
	case <-r.decided:
		if err == nil {
			st.end()
		}
	}
}

// failed draws the conclusions from a source that delivered nothing.
func (f *fetch) failed(a attempt) {
	a.from.hadItsTurn = true
	switch {
	case errors.Is(a.err, verify.ErrMismatch):
		// No client has seen what was spooled; but if peers gave what went before
		// it, that may be the wrong part.
		a.from.tries = maxTries
		digest := f.gate.Digest()
		f.s.distrust(digest.Target(), kinds(0).with(a.from.kind()), digest.FromPeers())
	case errors.Is(a.err, upstream.ErrAbsent):
		a.from.tries = maxTries
	}
}
