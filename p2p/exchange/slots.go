package exchange

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// slotPatience is how long whoever finds no slot waits for one. A client begins
// its next session when it has ended one, which the server hears of at about the
// same time; to be sent away for seconds would be a high price for that.
const slotPatience = 100 * time.Millisecond

// slots bounds how much is done at once, in all and for each peer. Who finds
// no slot for a moment is sent away rather than queued.
type slots struct {
	total, perPeer int

	mu    sync.Mutex
	used  int
	peers map[peer.ID]int
	// freed is closed, and replaced, when a slot is given back.
	freed chan struct{}
}

func newSlots(total, perPeer int) *slots {
	return &slots{total: total, perPeer: perPeer, peers: make(map[peer.ID]int), freed: make(chan struct{})}
}

// await takes a slot for the peer as soon as there is one, and reports whether
// that was within slotPatience.
func (s *slots) await(ctx context.Context, p peer.ID) bool {
	patience := time.NewTimer(slotPatience)
	defer patience.Stop()
	for {
		taken, freed := s.take(p)
		if taken {
			return true
		}
		select {
		case <-freed:
		case <-patience.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// take takes a slot for the peer, and reports whether there was one; if not,
// freed is closed when one is given back.
func (s *slots) take(p peer.ID) (taken bool, freed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used >= s.total || s.peers[p] >= s.perPeer {
		return false, s.freed
	}
	s.used++
	s.peers[p]++
	return true, nil
}

// release gives back a slot that the peer took.
func (s *slots) release(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	if s.peers[p]--; s.peers[p] == 0 {
		delete(s.peers, p)
	}
	close(s.freed)
	s.freed = make(chan struct{})
}

// inUse returns how many slots are taken.
func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}
