package locate

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

const (
	// maxLedger bounds the peers that are remembered, at some 100 bytes each.
	maxLedger = 4_096
	// A peer that could not be reached is taken for dead for firstBackoff, then
	// twice as long with each further time, up to lastBackoff.
	firstBackoff = 5 * time.Second
	lastBackoff  = time.Minute
	// failureTTL is how long failures count against a peer that was not heard of
	// since.
	failureTTL = 30 * time.Minute
	// rttWeight is the weight of one more round trip among those before.
	rttWeight = 0.25
)

// Ledger remembers how peers could be reached: what to expect when they are
// asked again, not what to believe them. It is safe for concurrent use.
type Ledger struct {
	mu    sync.Mutex
	peers *lru.LRU[peer.ID, account]
}

var _ exchange.Observer = (*Ledger)(nil)

// account is what is known of one peer.
type account struct {
	// rtt is the smoothed time from a request to its answer; 0 if not known.
	rtt time.Duration
	// failures counts those since the last success, failed is the last.
	failures int
	failed   time.Time
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	peers, err := lru.NewLRU[peer.ID, account](maxLedger, nil)
	if err != nil {
		panic("locate: " + err.Error()) // only for a size that is not positive
	}
	return &Ledger{peers: peers}
}

// Answered implements exchange.Observer.
func (l *Ledger) Answered(p peer.ID, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, _ := l.peers.Get(p)
	if a.rtt == 0 {
		a.rtt = after
	} else {
		a.rtt += time.Duration(rttWeight * float64(after-a.rtt))
	}
	a.failures = 0
	l.peers.Add(p, a)
}

// Failed implements exchange.Observer. Failures of a peer that is taken for
// dead already are the same one: a line that breaks takes all requests with it.
func (l *Ledger) Failed(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, _ := l.peers.Get(p)
	now := time.Now()
	switch {
	case a.dead(now):
		return
	case now.Sub(a.failed) >= failureTTL:
		a.failures = 0
	}
	a.failures++
	a.failed = now
	l.peers.Add(p, a)
}

// Reached says that a peer is there, whatever was before.
func (l *Ledger) Reached(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, ok := l.peers.Peek(p); ok && a.failures > 0 {
		a.failures = 0
		l.peers.Add(p, a)
	}
}

// Dead reports whether the peer could not be reached just now.
func (l *Ledger) Dead(p peer.ID) bool { return l.account(p).dead(time.Now()) }

// RTT is the usual time from a request to the peer to its answer, 0 where it is
// not known.
func (l *Ledger) RTT(p peer.ID) time.Duration { return l.account(p).rtt }

func (l *Ledger) account(p peer.ID) account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, _ := l.peers.Peek(p)
	return a
}

func (a account) dead(now time.Time) bool {
	if a.failures == 0 {
		return false
	}
	backoff := firstBackoff
	for range min(a.failures-1, 8) {
		backoff *= 2
	}
	return now.Sub(a.failed) < min(backoff, lastBackoff)
}

// Reach is how a peer can be reached, from the best way on.
type Reach int

const (
	// LAN is for a peer that is connected on the local network.
	LAN Reach = iota
	// Connected is for one that is connected directly.
	Connected
	// Direct is for one that is not connected and has an address to be dialled at.
	Direct
	// Relayed is for one that only a relay leads to.
	Relayed
)

// compare orders peers by how soon they are likely to answer.
func (f *Finder) compare(p, q peer.ID) int {
	a, b := f.cfg.Ledger.account(p), f.cfg.Ledger.account(q)
	now := time.Now()
	return cmp.Or(
		compareBool(a.dead(now), b.dead(now)),
		cmp.Compare(f.cfg.Reach(p), f.cfg.Reach(q)),
		cmp.Compare(a.failures, b.failures),
		cmp.Compare(f.speed(q), f.speed(p)),
		compareBool(a.rtt == 0, b.rtt == 0),
		cmp.Compare(a.rtt, b.rtt),
	)
}

// usualRate is taken for the rate of a peer that has brought nothing yet, in
// bytes a second: somebody's upload at home. Whoever is slower comes after it.
const usualRate = 2 << 20

// speed is the order of magnitude of what a peer brings, in powers of two: lesser
// differences say nothing.
func (f *Finder) speed(p peer.ID) int {
	rate := f.cfg.Rate(p)
	if rate <= 0 {
		rate = usualRate
	}
	return int(math.Floor(math.Log2(rate)))
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// sort orders the holders of a NAR: those that can be reached best first, and
// among them those that have said themselves that they hold it.
func (f *Finder) sort(holders []holder) {
	slices.SortStableFunc(holders, func(a, b holder) int {
		return cmp.Or(
			cmp.Compare(f.cfg.Reach(a.peer), f.cfg.Reach(b.peer)),
			compareBool(!a.own, !b.own),
			f.compare(a.peer, b.peer),
		)
	})
}
