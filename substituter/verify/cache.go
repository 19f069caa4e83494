package verify

import (
	"bytes"
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
	c.mu.Lock()
	defer c.mu.Unlock()
	for step := offset / Interval; step > 0; step-- {
		if s, ok := c.states.Get(position{target.Hash, step}); ok {
			d.sum, d.offset, d.peers = restore(s.sum), step*Interval, s.peers
			break
		}
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

// Drop forgets all states of a NAR, whose bytes have proved wrong.
func (c *Cache) Drop(target Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for step := int64(1); step <= target.Size/Interval; step++ {
		c.states.Remove(position{target.Hash, step})
	}
}
