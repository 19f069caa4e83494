package swarm

import (
	"math"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
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

// Standing remembers how peers behaved. It is safe for concurrent use.
type Standing struct {
	mu    sync.Mutex
	peers *lru.Cache[peer.ID, record]
}

// record is what is known of one peer.
type record struct {
	// honest says that a NAR matched as a whole under a manifest of the peer's,
	// and that none has failed to since.
	honest bool
	// penalty is as of at, and decays.
	penalty float64
	at      time.Time
	// failure is when a failure last counted.
	failure time.Time
	// pace is how the peer delivered of late.
	pace pace
}

// pace is how a peer delivers.
type pace struct {
	// rate is in bytes a second, firstByte the time from the wish for a NAR to the
	// first verified bytes of it. 0 is not known.
	rate      float64
	firstByte time.Duration
}

// paceWeight is the weight of one more NAR among those before: lines change, and
// the time of one NAR says little.
const paceWeight = 0.25

// delivered notes how the peer delivered a NAR; 0 is not known.
func (s *Standing) delivered(p peer.ID, latest pace) {
	s.change(p, func(r *record) {
		r.pace.rate = smooth(r.pace.rate, latest.rate)
		r.pace.firstByte = smooth(r.pace.firstByte, latest.firstByte)
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

// pace returns how the peer delivers.
func (s *Standing) pace(p peer.ID) pace {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := s.peers.Peek(p)
	return r.pace
}

// NewStanding returns the standing of peers that nothing is known of.
func NewStanding() *Standing {
	peers, err := lru.New[peer.ID, record](maxStandings)
	if err != nil {
		panic("swarm: standing: " + err.Error())
	}
	return &Standing{peers: peers}
}

// Usable reports whether the peer may be asked.
func (s *Standing) Usable(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := s.peers.Get(p)
	return r.now() < unusable
}

// Honest reports whether the peer once sent a manifest that the whole NAR
// proved right, and never since one that it proved wrong.
func (s *Standing) Honest(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := s.peers.Get(p)
	return r.honest
}

// proved notes that a manifest of the peer's was right.
func (s *Standing) proved(p peer.ID) {
	s.change(p, func(r *record) { r.honest = true })
}

// lied notes that a manifest of the peer's was wrong.
func (s *Standing) lied(p peer.ID) {
	s.change(p, func(r *record) {
		r.honest = false
		r.penalty += penaltyLie
	})
}

// penalise adds to the peer's penalty.
func (s *Standing) penalise(p peer.ID, penalty float64) {
	s.change(p, func(r *record) { r.penalty += penalty })
}

// failed notes that the peer could not be reached, or that a stream stalled or
// broke.
func (s *Standing) failed(p peer.ID) {
	s.change(p, func(r *record) {
		if now := time.Now(); now.Sub(r.failure) >= failureInterval {
			r.failure = now
			r.penalty += penaltyFailure
		}
	})
}

func (s *Standing) change(p peer.ID, f func(*record)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := s.peers.Get(p)
	r.penalty, r.at = r.now(), time.Now()
	f(&r)
	s.peers.Add(p, r)
}

// now returns what is left of the penalty.
func (r record) now() float64 {
	if r.penalty == 0 {
		return 0
	}
	return r.penalty * math.Exp2(-float64(time.Since(r.at))/float64(halfLife))
}
