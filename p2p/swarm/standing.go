package swarm

import (
	"math"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// halfLife is how long a penalty takes to halve: a bad disk is not malice,
	// and a peer that was repaired should be asked again the same day.
	halfLife = time.Hour
	// unusable is the penalty from which on a peer is not asked.
	unusable = 3.0
	// maxStandings bounds the peers that are remembered. Identities are free, so
	// whoever wants to be forgotten can be: penalties spare us honest errors.
	maxStandings = 4096
)

// Penalties, to be read with unusable and halfLife.
const (
	// penaltyLie is for a manifest that was wrong: no more for 85 minutes.
	penaltyLie = 8.0
	// penaltyWrong is for wrong bytes or a broken protocol: twice is too often.
	penaltyWrong = 2.0
	// penaltyFailure is for a stream that stalled or broke, and for a dial.
	penaltyFailure = 0.5
)

// failureInterval is the time within which failures count as one: a line that
// breaks, on either side, takes all transfers with it.
const failureInterval = time.Minute

// Standing remembers how peers behaved, and how they deliver. It is safe for
// concurrent use.
type Standing struct {
	// store keeps it over a restart; nil for not at all.
	store ds.Batching

	mu    sync.Mutex
	peers *lru.LRU[peer.ID, Record]
	// changed are those to be written, of which some may be forgotten.
	changed map[peer.ID]struct{}
}

// pace is how a peer delivers; 0 is not known.
type pace struct {
	rate           float64
	rtt, firstByte time.Duration
	lan            bool
}

// paceWeight is the weight of one more NAR among those before: lines change, and
// the time of one NAR says little.
const paceWeight = 0.25

// delivered notes how the peer delivered a NAR.
func (s *Standing) delivered(p peer.ID, latest pace) {
	s.change(p, func(r *Record) {
		r.Rate = smooth(r.Rate, latest.rate)
		r.RTT = smooth(r.RTT, latest.rtt)
		r.FirstByte = smooth(r.FirstByte, latest.firstByte)
		r.LAN = latest.lan
		r.Success = time.Now()
	})
}

// smooth returns the average that has been so far with the latest value in it.
func smooth[T float64 | time.Duration](average, latest T) T {
	switch {
	case latest == 0:
		return average
	case average == 0:
		return latest
	default:
		return average + T(paceWeight*float64(latest-average))
	}
}

// NewStanding returns the standing of peers that nothing is known of.
func NewStanding() *Standing {
	s := &Standing{changed: make(map[peer.ID]struct{})}
	peers, err := lru.NewLRU(maxStandings, func(p peer.ID, _ Record) { s.changed[p] = struct{}{} })
	if err != nil {
		panic("swarm: standing: " + err.Error())
	}
	s.peers = peers
	return s
}

// Rate is what a peer brings, in bytes a second; 0 is not known.
func (s *Standing) Rate(p peer.ID) float64 { return s.record(p).Rate }

func (s *Standing) record(p peer.ID) Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := s.peers.Peek(p)
	return r
}

// Usable reports whether the peer may be asked.
func (s *Standing) Usable(p peer.ID) bool {
	r := s.record(p)
	return r.now() < unusable
}

// RestsUntil returns when the peer may be asked again, or the zero time if it may be.
func (s *Standing) RestsUntil(p peer.ID) time.Time {
	r := s.record(p)
	penalty := r.now()
	if penalty < unusable {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(math.Log2(penalty/unusable) * float64(halfLife)))
}

// Honest reports whether the peer once sent a manifest that the whole NAR
// proved right, and never since one that it proved wrong.
func (s *Standing) Honest(p peer.ID) bool {
	return s.record(p).Honest
}

// proved notes that a manifest of the peer's was right.
func (s *Standing) proved(p peer.ID) {
	s.change(p, func(r *Record) { r.Honest = true })
}

// lied notes that a manifest of the peer's was wrong.
func (s *Standing) lied(p peer.ID) {
	s.change(p, func(r *Record) {
		r.Honest = false
		r.Penalty += penaltyLie
	})
}

// penalise adds to the peer's penalty.
func (s *Standing) penalise(p peer.ID, penalty float64) {
	s.change(p, func(r *Record) { r.Penalty += penalty })
}

// failed notes that the peer could not be reached, or that a stream stalled or
// broke.
func (s *Standing) failed(p peer.ID) {
	s.change(p, func(r *Record) {
		if now := time.Now(); now.Sub(r.Failure) >= failureInterval {
			r.Failure = now
			r.Penalty += penaltyFailure
		}
	})
}

func (s *Standing) change(p peer.ID, f func(*Record)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := s.peers.Get(p)
	r.Penalty, r.At = r.now(), time.Now()
	f(&r)
	r.Peer = p
	s.peers.Add(p, r)
	s.changed[p] = struct{}{}
}

// now returns what is left of the penalty.
func (r *Record) now() float64 {
	if r.Penalty == 0 {
		return 0
	}
	return r.Penalty * math.Exp2(-float64(time.Since(r.At))/float64(halfLife))
}
