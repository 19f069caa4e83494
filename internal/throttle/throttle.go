// Package throttle bounds how many bytes per second come in, over all that fetch
// something together.
//
// Whoever fetches has a Line. It awaits its turn before it lets something come, and
// then pays for what that is; what was paid has to pass before the next one has a
// turn. Turns are given in the order in which they are asked for, so that nobody
// starves, however many there are. A Line knows for how long it was held up, so
// that nobody takes a source for slow that was not asked.
package throttle

import (
	"context"
	"sync"
	"time"
)

// burst is how much may be made up for that did not come in time.
const burst = 100 * time.Millisecond

// Throttle is a limit. It is safe for concurrent use.
type Throttle struct {
	// turn has one token. Who has it is next.
	turn chan struct{}

	mu sync.Mutex
	// perSecond is in bytes; 0 sets no limit.
	perSecond int64
	// ready is when what was paid has passed.
	ready time.Time
	// changed is closed, and replaced, when the limit changes.
	changed chan struct{}
}

// New returns a throttle of so many bytes per second; 0 sets no limit.
func New(bytesPerSecond int64) *Throttle {
	return &Throttle{turn: make(chan struct{}, 1), perSecond: bytesPerSecond, changed: make(chan struct{})}
}

// Limit changes the limit, also for those who wait; 0 sets none.
func (t *Throttle) Limit(bytesPerSecond int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if left := t.ready.Sub(now); left > 0 && bytesPerSecond > 0 {
		t.ready = now.Add(time.Duration(float64(left) * float64(t.perSecond) / float64(bytesPerSecond)))
	}
	t.perSecond = bytesPerSecond
	close(t.changed)
	t.changed = make(chan struct{})
}

// PerSecond returns the limit in bytes per second, 0 where there is none.
func (t *Throttle) PerSecond() int64 {
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.perSecond
}

// Line returns one that fetches under the limit.
func (t *Throttle) Line() *Line { return &Line{throttle: t} }

// pending returns for how long what was paid has still to pass.
func (t *Throttle) pending() (left time.Duration, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.perSecond == 0 {
		return 0, t.changed
	}
	return time.Until(t.ready), t.changed
}

func (t *Throttle) pay(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.perSecond == 0 {
		return
	}
	from := time.Now().Add(-burst)
	if t.ready.After(from) {
		from = t.ready
	}
	t.ready = from.Add(time.Duration(float64(n) / float64(t.perSecond) * float64(time.Second)))
}

// pass waits until what was paid has passed.
func (t *Throttle) pass(ctx context.Context) error {
	for {
		left, changed := t.pending()
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// Line is one that fetches. It is safe for concurrent use, and nil is one without
// any limit.
type Line struct {
	throttle *Throttle

	mu sync.Mutex
	// waiting counts those who wait, since is from when on somebody has, and held
	// how long that was before.
	waiting int
	since   time.Time
	held    time.Duration
}

// Await waits until something may come. How many bytes that is, or were before,
// must then be paid, once, and at once: others wait for the turn.
func (l *Line) Await(ctx context.Context) (pay func(n int64), err error) {
	if l == nil || l.throttle.PerSecond() == 0 {
		return func(int64) {}, nil
	}
	t := l.throttle
	l.begin()
	defer l.end()
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := t.pass(ctx); err != nil {
		<-t.turn
		return nil, err
	}
	return func(n int64) {
		t.pay(n)
		<-t.turn
	}, nil
}

func (l *Line) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting++; l.waiting == 1 {
		l.since = time.Now()
	}
}

func (l *Line) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting--; l.waiting == 0 {
		l.held += time.Since(l.since)
	}
}

// Waits reports whether the line is being held up now.
func (l *Line) Waits() bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting > 0
}

// Held returns for how long the line was held up, all in all.
func (l *Line) Held() time.Duration {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting > 0 {
		return l.held + time.Since(l.since)
	}
	return l.held
}

// Most returns how much should be asked for with one turn, in bytes, so that others
// need not wait long; 0 where that does not matter.
func (l *Line) Most() int64 {
	if l == nil {
		return 0
	}
	return l.throttle.PerSecond() / 4
}

type lineKey struct{}

// With returns a context in which whatever is fetched comes over a line.
func With(ctx context.Context, l *Line) context.Context {
	if l == nil {
		return ctx
	}
	return context.WithValue(ctx, lineKey{}, l)
}

// From returns the line of a context, or nil.
func From(ctx context.Context) *Line {
	l, _ := ctx.Value(lineKey{}).(*Line)
	return l
}
