package follow

import (
	"context"
	"time"
)

// restFactor bounds the cost of whatever has a Pace: what took d is followed by
// a rest of 20 d, and so takes less than 5 % of one core.
const restFactor = 20

// maxRest is the longest such rest, so that a busy machine is not left with old
// news.
const maxRest = time.Minute

// Pace spaces something expensive. The zero value allows it at once.
type Pace struct{ next time.Time }

// Due reports whether it may be done now.
func (p *Pace) Due() bool { return !time.Now().Before(p.next) }

// Done notes that it was done just now, and took d.
func (p *Pace) Done(d time.Duration) { p.next = time.Now().Add(min(restFactor*d, maxRest)) }

// Wait returns after d, or earlier with the error of ctx.
func Wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
