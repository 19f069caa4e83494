package exchange

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/p2p/netgroup"
)

// slotPatience is how long whoever finds no slot waits for one. A client begins
// its next session when it has ended one, which the server hears of at about the
// same time; to be sent away for seconds would be a high price for that.
const slotPatience = 100 * time.Millisecond

// stallGrace is how many times longer than its next request a peer may keep a
// write waiting: many streams may share a slow line.
const stallGrace = 10

// holder is who takes slots.
type holder struct {
	peer peer.ID
	// group is where the peer is, as exactly as one who is cheap to get addresses
	// there; zero on the local network, where many are behind few addresses.
	group netip.Prefix
}

func holderOf(p peer.ID, addr ma.Multiaddr) holder {
	h := holder{peer: p}
	h.group, _ = netgroup.Far(addr) // zero for none
	return h
}

// slots bounds how many streams are served at once, in all, for each peer and
// for each group of addresses. Who finds no slot for a moment is sent away
// rather than queued. A stream that waits for its peer loses its slot when
// others want one: first those of the peer that has the most.
type slots struct {
	total, perPeer int

	mu     sync.Mutex
	taken  map[*slot]struct{}
	peers  map[peer.ID]int
	groups map[netip.Prefix]int
	// freed is closed, and replaced, when a slot is given back.
	freed chan struct{}
}

// slot is one that a stream has.
type slot struct {
	of *slots
	holder
	// wake ends what the stream waits for.
	wake func()
	// due is from when on others may have the slot; zero while the server is at
	// work on the stream.
	due time.Time
	// lost says that others have it.
	lost bool
}

func newSlots(total, perPeer int) *slots {
	return &slots{
		total:   total,
		perPeer: perPeer,
		taken:   make(map[*slot]struct{}),
		peers:   make(map[peer.ID]int),
		groups:  make(map[netip.Prefix]int),
		freed:   make(chan struct{}),
	}
}

// perGroup is how many slots a group of addresses may have: half of those that
// others do not have. So some are left for whoever comes, however many a few groups
// want; mu is held.
func (s *slots) perGroup(group netip.Prefix) int {
	others := len(s.taken) - s.groups[group]
	return max((s.total-others)/2, 1)
}

// await takes a slot as soon as there is one, or says what there was no room
// for within slotPatience.
func (s *slots) await(ctx context.Context, h holder, wake func()) (*slot, refusalReason) {
	patience := time.NewTimer(slotPatience)
	defer patience.Stop()
	for {
		got, reason, freed := s.take(h, wake)
		if got != nil {
			return got, ""
		}
		select {
		case <-freed:
		case <-patience.C:
			got, reason, _ = s.take(h, wake)
			return got, reason
		case <-ctx.Done():
			return nil, reason
		}
	}
}

// take takes a slot, if need be from a stream that waits for its peer. If there
// is none, freed is closed when one is given back.
func (s *slots) take(h holder, wake func()) (got *slot, reason refusalReason, freed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	eligible := func(*slot) bool { return true }
	switch {
	case s.peers[h.peer] >= s.perPeer:
		reason, eligible = refusedPeer, func(o *slot) bool { return o.peer == h.peer }
	case h.group.IsValid() && s.groups[h.group] >= s.perGroup(h.group):
		reason, eligible = refusedGroup, func(o *slot) bool { return o.group == h.group }
	case len(s.taken) >= s.total:
		reason = refusedFull
	}
	if reason != "" {
		spare := s.spare(eligible)
		if spare == nil {
			return nil, reason, s.freed
		}
		spare.lost = true
		s.remove(spare)
		spare.wake()
	}
	got = &slot{of: s, holder: h, wake: wake}
	s.taken[got] = struct{}{}
	s.peers[h.peer]++
	if h.group.IsValid() {
		s.groups[h.group]++
	}
	return got, "", nil
}

// spare returns the slot that is to be had first, or nil; mu is held.
func (s *slots) spare(eligible func(*slot) bool) (first *slot) {
	now := time.Now()
	for o := range s.taken {
		switch {
		case o.due.IsZero() || now.Before(o.due) || !eligible(o):
		case first == nil || s.peers[o.peer] > s.peers[first.peer],
			s.peers[o.peer] == s.peers[first.peer] && o.due.Before(first.due):
			first = o
		}
	}
	return first
}

// remove takes a slot away from its stream; mu is held.
func (s *slots) remove(o *slot) {
	delete(s.taken, o)
	if s.peers[o.peer]--; s.peers[o.peer] == 0 {
		delete(s.peers, o.peer)
	}
	if o.group.IsValid() {
		if s.groups[o.group]--; s.groups[o.group] == 0 {
			delete(s.groups, o.group)
		}
	}
	close(s.freed)
	s.freed = make(chan struct{})
}

// inUse returns how many slots are taken.
func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.taken)
}

// load returns how many peers are being served, and how many streams of this
// one, without those that others may have the slots of.
func (s *slots) load(p peer.ID) (peers, streams int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	served := make(map[peer.ID]int, len(s.peers))
	for o := range s.taken {
		if o.due.IsZero() || now.Before(o.due) {
			served[o.peer]++
		}
	}
	return len(served), served[p]
}

// waiting says that the stream waits for its peer, and for how long nobody else
// may have the slot.
func (o *slot) waiting(grace time.Duration) {
	o.of.mu.Lock()
	defer o.of.mu.Unlock()
	o.due = time.Now().Add(grace)
}

// working says that the wait is over. It reports false where others have the
// slot.
func (o *slot) working() bool {
	o.of.mu.Lock()
	defer o.of.mu.Unlock()
	o.due = time.Time{}
	return !o.lost
}

// release gives the slot back, unless others have it.
func (o *slot) release() {
	o.of.mu.Lock()
	defer o.of.mu.Unlock()
	if !o.lost {
		o.of.remove(o)
	}
}
