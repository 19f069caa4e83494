package verify

import (
	"bytes"
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Interval is how far apart the kept states of a NAR are, in bytes: what a
// resumed request reads again at most.
const Interval = 1 << 20

// states is how many are kept, for 32 GiB of NARs; about 200 bytes each.
const states = 32 << 10

// Cache keeps the states of digests in memory, those used last.
type Cache struct {
	mu     sync.Mutex
	states *simplelru.LRU[position, state]
}

type position struct {
	hash nix.NARHash
	// step is the offset in Intervals.
	step int64
}

type state struct {
	sum   []byte
	peers bool
}

// NewCache returns an empty cache.
func NewCache() *Cache {
	lru, err := simplelru.NewLRU[position, state](states, nil)
	if err != nil {
		panic("verify: " + err.Error()) // the size is a positive constant
	}
	return &Cache{states: lru}
}

// Resume returns a digest of as many of the first offset bytes as a state was
// kept for, possibly of none.
func (c *Cache) Resume(target Target, offset int64) *Digest {
	d := NewDigest(target)
	if offset < Interval {
		return d
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	best := position{hash: target.Hash}
	for _, at := range c.of(target.Hash) {
		if at.step <= offset/Interval && at.step > best.step {
			best = at
		}
	}
	if s, ok := c.states.Get(best); ok {
		d.sum, d.offset, d.peers = restore(s.sum), best.step*Interval, s.peers
	}
	return d
}

// keep saves the state of a digest that stands at a whole number of Intervals.
// It reports whether it agrees with what was kept: two readings of one NAR
// that differ mean that a client has been given wrong bytes.
func (c *Cache) keep(d *Digest) bool {
	s := state{sum: d.state(), peers: d.peers}
	at := position{d.target.Hash, d.offset / Interval}
	c.mu.Lock()
	defer c.mu.Unlock()
	old, ok := c.states.Get(at)
	if ok && !bytes.Equal(old.sum, s.sum) {
		return false
	}
	s.peers = s.peers || old.peers
	c.states.Add(at, s)
	return true
}

// of lists where states of a NAR are kept; c.mu is held. It looks through all
// that are kept, a matter of a millisecond, and not through all steps of the
// NAR: its size can be anybody's word.
func (c *Cache) of(hash nix.NARHash) []position {
	return slices.DeleteFunc(c.states.Keys(), func(at position) bool { return at.hash != hash })
}

// Drop forgets all states of a NAR, whose bytes have proved wrong.
func (c *Cache) Drop(target Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.of(target.Hash) {
		c.states.Remove(at)
	}
}
