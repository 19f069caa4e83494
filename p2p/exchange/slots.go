package exchange

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// slots bounds how much is done at once, in all and for each peer. Who finds
// no slot is sent away rather than queued.
type slots struct {
	total, perPeer int

	mu    sync.Mutex
	used  int
	peers map[peer.ID]int
}

func newSlots(total, perPeer int) *slots {
	return &slots{total: total, perPeer: perPeer, peers: make(map[peer.ID]int)}
}

// take takes a slot for the peer, and reports whether there was one.
func (s *slots) take(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used >= s.total || s.peers[p] >= s.perPeer {
		return false
	}
	s.used++
	s.peers[p]++
	return true
}

// release gives back a slot that the peer took.
func (s *slots) release(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	if s.peers[p]--; s.peers[p] == 0 {
		delete(s.peers, p)
	}
}

// inUse returns how many slots are taken.
func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}
