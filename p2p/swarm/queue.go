package swarm

import (
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

// queue holds providers that are busy until they are to be asked again.
type queue struct {
	// postponed is in the order of when they are due.
	postponed []postponed
	// until ends the patience with busy providers, and begins with the first.
	until time.Time
}

type postponed struct {
	provider peer.AddrInfo
	due      time.Time
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

// due returns a provider that is to be asked again now, if there is one.
func (q *queue) due(now time.Time) (p peer.AddrInfo, ok bool) {
	if len(q.postponed) == 0 || now.Before(q.postponed[0].due) {
		return p, false
	}
	p = q.postponed[0].provider
	q.postponed = q.postponed[1:]
	return p, true
}
