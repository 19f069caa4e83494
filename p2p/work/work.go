// Package work bounds the processor time that is spent on peers, by estimate and
// before it is spent, whatever they ask for and however many streams and identities
// they have.
//
// Far beyond the local network all together have so much, those of one group of
// addresses half of that, and one peer a quarter. A neighbour has twice, and all
// neighbours together four times as much. What was not done is saved up, for what an
// honest peer wants comes in bursts: the records of a closure, the manifests of an
// upgrade.
package work

import (
	"math"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"

	"github.com/nar-p2p/nar-p2p/p2p/netgroup"
)

// saved is for how many seconds work that was not done is saved up.
const saved = 20

// maxKnown is how many peers, and how many groups, are remembered by what they had
// done.
const maxKnown = 1024

// Who is for whom work is done.
type Who struct {
	Peer peer.ID
	// Group is where the peer is, or zero on the local network.
	Group netip.Prefix
}

// At returns the peer at an address.
func At(p peer.ID, addr ma.Multiaddr) Who {
	group, _ := netgroup.Far(addr) // zero for none
	return Who{Peer: p, Group: group}
}

// Limit is how much is done. It is safe for concurrent use.
type Limit struct {
	perSecond time.Duration
	far, near *rate.Limiter
	peers     *lru.Cache[peer.ID, *rate.Limiter]
	groups    *lru.Cache[netip.Prefix, *rate.Limiter]
	// charging is held while work is taken and perhaps given back: a limiter keeps
	// some of what is given back after others have asked.
	charging sync.Mutex
}

// New returns a limit by how much processor time a second peers beyond the local
// network may have together.
func New(perSecond time.Duration) *Limit {
	peers, peersErr := lru.New[peer.ID, *rate.Limiter](maxKnown)
	groups, groupsErr := lru.New[netip.Prefix, *rate.Limiter](maxKnown)
	if peersErr != nil || groupsErr != nil {
		panic("work: no room to remember anybody")
	}
	return &Limit{
		perSecond: perSecond, far: newAllowance(perSecond), near: newAllowance(4 * perSecond), peers: peers, groups: groups,
	}
}

// newAllowance returns a limiter in microseconds.
func newAllowance(perSecond time.Duration) *rate.Limiter {
	micros := float64(perSecond.Microseconds())
	return rate.NewLimiter(rate.Limit(micros), int(min(micros*saved, math.MaxInt32)))
}

// allowances are the limiters against which the work for somebody counts.
func (l *Limit) allowances(who Who) []*rate.Limiter {
	if !who.Group.IsValid() {
		return []*rate.Limiter{remembered(l.peers, who.Peer, 2*l.perSecond), l.near}
	}
	return []*rate.Limiter{remembered(l.peers, who.Peer, l.perSecond/4), remembered(l.groups, who.Group, l.perSecond/2), l.far}
}

func remembered[K comparable](c *lru.Cache[K, *rate.Limiter], key K, perSecond time.Duration) *rate.Limiter {
	if l, ok := c.Get(key); ok {
		return l
	}
	l := newAllowance(perSecond)
	if before, ok, _ := c.PeekOrAdd(key, l); ok {
		return before
	}
	return l
}

// Charge takes work from somebody's allowance, or, where there is not enough, takes
// nothing and says how long it lasts until there is. What costs more than half of
// what is ever saved up costs half: else it might never be done.
func (l *Limit) Charge(who Who, cost time.Duration) (wait time.Duration) {
	l.charging.Lock()
	defer l.charging.Unlock()
	now := time.Now()
	var taken []*rate.Reservation
	for _, a := range l.allowances(who) {
		r := a.ReserveN(now, int(min(cost.Microseconds(), int64(a.Burst()/2))))
		taken = append(taken, r)
		wait = max(wait, r.DelayFrom(now))
	}
	if wait > 0 {
		for _, r := range taken {
			r.CancelAt(now)
		}
	}
	return wait
}
