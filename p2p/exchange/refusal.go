package exchange

import (
	"math"
	"sync"
	"time"
)

// refusalReason is why a peer was not served, as metrics name it.
type refusalReason string

const (
	// refusedStranger was not admitted.
	refusedStranger refusalReason = "not_admitted"
	// refusedRelayed asked for a NAR through a relay that is not meant for them.
	refusedRelayed refusalReason = "relayed"
	// refusedFull found all slots taken, refusedPeer all of one peer's, and
	// refusedGroup all of one group of addresses.
	refusedFull  refusalReason = "full"
	refusedPeer  refusalReason = "peer"
	refusedGroup refusalReason = "address_group"
	// refusedIdle lost its slot to another while it waited for its peer.
	refusedIdle refusalReason = "idle"
	// refusedShare would get too little of the upload limit.
	refusedShare refusalReason = "upload_limit"
	// refusedManifest needs a manifest while others are computed.
	refusedManifest refusalReason = "manifests"
	// refusedWork has had enough done for it, or its group of addresses, or all.
	refusedWork refusalReason = "work"
	// refusedMemory found libp2p's memory reserved.
	refusedMemory refusalReason = "memory"
)

// refusalReasons are all there are.
var refusalReasons = []refusalReason{
	refusedStranger, refusedRelayed, refusedFull, refusedPeer, refusedGroup, refusedIdle, refusedShare, refusedManifest, refusedWork, refusedMemory,
}

// maxRetry is the longest time for which a server puts anybody off: about the
// patience of whoever fetches a NAR.
const maxRetry = 30 * time.Second

// refusals counts whom there was no room for, and says when to come back.
type refusals struct {
	mu     sync.Mutex
	counts map[refusalReason]int64
	// lately is the number of refusals in about the last period before at.
	lately float64
	at     time.Time
}

// count counts a refusal.
func (r *refusals) count(reason refusalReason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = make(map[refusalReason]int64)
	}
	r.counts[reason]++
}

// retryAfter returns when to try again: after a period, and the later the more
// were put off in the period before. Room for some comes free in each of them,
// so all at once would find none.
func (r *refusals) retryAfter(period time.Duration, room int) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.lately *= math.Exp(-float64(now.Sub(r.at)) / float64(period))
	r.at = now
	periods := 1 + math.Floor(r.lately/float64(max(room, 1)))
	r.lately++
	return min(time.Duration(periods*float64(period)), max(maxRetry, period))
}

// of returns the count of a reason.
func (r *refusals) of(reason refusalReason) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[reason]
}

// total returns the count of all.
func (r *refusals) total() (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, count := range r.counts {
		n += count
	}
	return n
}
