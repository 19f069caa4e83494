package swarm

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// maxBusy is how long a transfer goes on asking providers that are busy.
	maxBusy = time.Minute
	// minRetry is how soon a busy provider is asked again at the earliest,
	// whatever it says.
	minRetry = 100 * time.Millisecond
)

// queue is the order in which providers are tried: as they are reached, and
// those that are busy again when they have asked to be.
type queue struct {
	candidates *candidates
	tried      int
	// postponed is in the order of when they are due.
	postponed []postponed
	// until ends the patience with busy providers, and begins with the first.
	until time.Time
}

type postponed struct {
	provider peer.AddrInfo
	due      time.Time
}

// next returns the next provider to be tried. It waits for one until ctx ends.
func (q *queue) next(ctx context.Context) (peer.AddrInfo, bool) {
	if p, ok := q.fresh(ctx); ok {
		q.tried++
		return p, true
	}
	if len(q.postponed) == 0 {
		return peer.AddrInfo{}, false
	}
	first := q.postponed[0]
	timer := time.NewTimer(time.Until(first.due))
	defer timer.Stop()
	select {
	case <-timer.C:
		q.postponed = q.postponed[1:]
		return first.provider, true
	case <-ctx.Done():
		return peer.AddrInfo{}, false
	}
}

// fresh returns the next candidate. It waits for one until a postponed one is
// due.
func (q *queue) fresh(ctx context.Context) (peer.AddrInfo, bool) {
	if q.tried == maxProviders {
		return peer.AddrInfo{}, false
	}
	if len(q.postponed) > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, q.postponed[0].due)
		defer cancel()
	}
	return q.candidates.at(ctx, q.tried)
}

// postpone puts a busy provider off, unless patience has ended.
func (q *queue) postpone(p peer.AddrInfo, retryAfter time.Duration) {
	now := time.Now()
	if q.until.IsZero() {
		q.until = now.Add(maxBusy)
	}
	due := now.Add(max(retryAfter, minRetry))
	if !due.Before(q.until) {
		return
	}
	at := slices.IndexFunc(q.postponed, func(other postponed) bool { return other.due.After(due) })
	if at < 0 {
		at = len(q.postponed)
	}
	q.postponed = slices.Insert(q.postponed, at, postponed{provider: p, due: due})
}
