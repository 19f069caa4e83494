package exchange

import (
	"math"
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// What answers cost in processor time, about: it is charged before the work is
// done, and the same whether there is what was asked for or not. A record is read
// from SQLite and its signatures verified; a manifest takes the reading, hashing and
// cutting of its NAR; of a NAR that is opened every file is looked at.
const (
	workOfStream       = 100 * time.Microsecond
	workOfHash         = 3 * time.Microsecond
	workOfRecord       = 150 * time.Microsecond
	workOfSession      = 300 * time.Microsecond
	workOfOpening      = 2 * time.Millisecond
	workOfKeptManifest = time.Millisecond
	workOfChunk        = 10 * time.Microsecond
	// Nanoseconds for each byte.
	workOfManifestByte = 3
	workOfByte         = 1
)

// unknownSize is what a NAR counts as whose size the shelf does not tell, in bytes.
const unknownSize = 64 << 20

// workSaved is for how many seconds work that was not done is saved up. What an
// honest peer wants comes in bursts: the records of a closure, the manifests of an
// upgrade.
const workSaved = 20

// maxWorkers is how many peers, and how many groups, are remembered by what they had
// done.
const maxWorkers = 1024

// sizer is a Shelf that tells the size of a NAR it holds, in bytes.
type sizer interface {
	Size(hash nix.NARHash) (size int64, held bool)
}

// work bounds the processor time that is spent on peers, whatever they ask for and
// however many streams and identities they have. Far beyond the local network all
// together have so much, those of one group of addresses half of that, and one peer
// a quarter. A neighbour has twice, and all neighbours together four times as much:
// for them a NAR may cost what it costs.
type work struct {
	perSecond time.Duration
	far, near *rate.Limiter
	peers     *lru.Cache[peer.ID, *rate.Limiter]
	groups    *lru.Cache[netip.Prefix, *rate.Limiter]
}

func newWork(perSecond time.Duration) *work {
	peers, peersErr := lru.New[peer.ID, *rate.Limiter](maxWorkers)
	groups, groupsErr := lru.New[netip.Prefix, *rate.Limiter](maxWorkers)
	if peersErr != nil || groupsErr != nil {
		panic("exchange: work: no room to remember anybody")
	}
	return &work{
		perSecond: perSecond, far: newAllowance(perSecond), near: newAllowance(4 * perSecond), peers: peers, groups: groups,
	}
}

// newAllowance returns a limiter in microseconds.
func newAllowance(perSecond time.Duration) *rate.Limiter {
	micros := float64(perSecond.Microseconds())
	return rate.NewLimiter(rate.Limit(micros), int(min(micros*workSaved, math.MaxInt32)))
}

// allowances are the limiters that a peer's work counts against.
func (w *work) allowances(h holder) []*rate.Limiter {
	if !h.group.IsValid() {
		return []*rate.Limiter{remembered(w.peers, h.peer, 2*w.perSecond), w.near}
	}
	return []*rate.Limiter{remembered(w.peers, h.peer, w.perSecond/4), remembered(w.groups, h.group, w.perSecond/2), w.far}
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

// charge takes work from a peer's allowance, or says how long it lasts until there
// is enough. What costs more than was ever saved up costs all of that.
func (w *work) charge(h holder, cost time.Duration) (wait time.Duration) {
	now := time.Now()
	var taken []*rate.Reservation
	for _, l := range w.allowances(h) {
		r := l.ReserveN(now, int(min(cost.Microseconds(), int64(l.Burst()))))
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

// charge charges work to who has a stream.
func (s *Server) charge(h holder, cost time.Duration) error {
	if wait := s.work.charge(h, cost); wait > 0 {
		return &noRoomError{reason: refusedWork, retryAfter: wait}
	}
	return nil
}

// workOfManifest is what it takes to send the manifest of a NAR.
func (s *Server) workOfManifest(hash nix.NARHash) time.Duration {
	if _, kept, _ := s.shelf.Held(hash); kept {
		return workOfKeptManifest
	}
	size := int64(unknownSize)
	if sized, ok := s.shelf.(sizer); ok {
		size, _ = sized.Size(hash)
	}
	return workOfKeptManifest + time.Duration(size*workOfManifestByte)
}

// workOfRun is what it takes to send chunks.
func workOfRun(run span) time.Duration {
	return time.Duration(len(run.lengths))*workOfChunk + time.Duration((run.end()-run.offset)*workOfByte)
}
