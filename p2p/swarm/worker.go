package swarm

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/internal/throttle"
	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

const (
	// maxRuns is how many requests a worker makes ahead of what has come.
	maxRuns = 64
	// maxUnchecked is how many chunks of one provider wait for their check beside
	// the one that comes in: enough that reading goes on.
	maxUnchecked = 4
)

// worker asks one provider for chunks over one session.
type worker struct {
	id      peer.ID
	window  *window
	session *exchange.Session
	// via is the way that the session takes, see Source.
	via string
	// wake tells it to look for something to ask.
	wake chan struct{}

	// What follows the window's mu guards.

	flow flow
	// queue holds what was asked for and is not in its slot yet, in order; owed
	// is how many bytes of that have not come.
	queue []item
	owed  int64
	// wanted and arrived count the bytes asked for and come, delivered those of
	// use.
	wanted, arrived, delivered int64
	// since is when something was first awaited that still is, moved when a chunk
	// last came, or was first awaited; first is when the first one was there.
	since, moved, first time.Time
	// stalled says that it owes something and says nothing, starved that it found
	// nothing to ask.
	stalled, starved bool
}

// poke makes the worker look for something to ask.
func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// heard is when the provider last said something, or was first asked for what
// it owes; the window's mu is held.
func (w *worker) heard() time.Time {
	if heard := w.session.Heard(); heard.After(w.since) {
		return heard
	}
	return w.since
}

// resolve takes a chunk off the queue; the window's mu is held.
func (w *worker) resolve(it item) {
	if len(w.queue) == 0 || w.queue[0].index != it.index {
		panic("swarm: chunks out of order")
	}
	w.queue = w.queue[1:]
}

// fill asks for chunks and puts them into the window, until the window is full
// for good or something fails. First receives what else was asked for, if it is
// not nil.
func (w *worker) fill(ctx context.Context, first func() error) error {
	w.window.join(w)
	defer w.window.leave(w)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var asker sync.WaitGroup
	asked := make(chan run, maxRuns)
	var askErr error
	asker.Go(func() {
		defer close(asked)
		askErr = w.ask(ctx, asked)
	})
	asker.Go(func() {
		select {
		case <-w.window.done:
			_ = w.session.Close() // what is on its way nobody needs any more
		case <-ctx.Done():
		}
	})
	err := w.receive(first, asked, cancel)
	cancel()
	if err != nil {
		w.session.Abort()
	}
	asker.Wait()
	select {
	case <-w.window.done:
		return nil
	default:
	}
	// A peer that hangs up on requests has said why before, if at all.
	return cmp.Or(err, askErr)
}

// ask asks for runs as the window gives them.
func (w *worker) ask(ctx context.Context, asked chan<- run) error {
	line := throttle.From(ctx)
	for {
		pay, err := line.Await(ctx)
		if err != nil {
			return err
		}
		r := w.window.take(w, line.Most())
		pay(r.bytes())
		if len(r.items) == 0 {
			select {
			case <-w.wake:
			case <-w.window.done:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			continue
		}
		select {
		case asked <- r:
		case <-w.window.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := w.session.Ask(r.chunks); err != nil {
			return err
		}
	}
}

// unchecked is a chunk that has come.
type unchecked struct {
	item   item
	parcel exchange.Parcel
	data   []byte
}

// receive receives what was asked for. Chunks are checked apart, so that
// reading goes on; stop ends the asking.
func (w *worker) receive(first func() error, asked <-chan run, stop func()) error {
	if first != nil {
		if err := first(); err != nil {
			return err
		}
	}
	came := make(chan unchecked, maxUnchecked)
	var checker sync.WaitGroup
	var wrong error
	checker.Go(func() { wrong = w.check(came, stop) })
	err := w.read(asked, came)
	close(came)
	checker.Wait()
	if wrong != nil {
		return wrong
	}
	return err
}

func (w *worker) read(asked <-chan run, came chan<- unchecked) error {
	for r := range asked {
		for i := range r.items {
			c := &r.chunks[i]
			data := w.window.memory.get(c.Length)
			parcel, err := w.session.Take(c, data)
			if err != nil {
				w.window.memory.put(data)
				return err
			}
			w.window.arrived(w, r.items[i])
			came <- unchecked{item: r.items[i], parcel: parcel, data: data}
		}
	}
	return nil
}

// check checks chunks and hands them on. After the first wrong one it stops the
// asking and the session, and drops the others.
func (w *worker) check(came <-chan unchecked, stop func()) (err error) {
	for u := range came {
		if err == nil {
			if err = u.parcel.Check(); err != nil {
				stop()
				w.session.Abort()
			}
		}
		if err != nil {
			w.window.waste(int64(len(u.data)))
			w.window.memory.put(u.data)
			continue
		}
		w.window.deliver(w, u.item, u.data)
	}
	return err
}

// trace ends the span of the session; the window's mu is held.
func (w *worker) trace(span tracing.Span, err error) {
	if !span.On() {
		return
	}
	span.String("nar_p2p.peer", w.id.String())
	span.String("nar_p2p.via", w.via)
	span.Int("nar_p2p.bytes", w.delivered)
	span.End(err)
}
