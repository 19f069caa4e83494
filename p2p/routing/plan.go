package routing

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p-kad-dht/amino"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

const (
	// cycle is how often every key is announced anew.
	cycle = amino.DefaultReprovideInterval
	// turns is the number of cycles in which each of the metadata keys that take
	// turns has one. A record outlives two cycles, so that of one node is there
	// for a quarter of the time; and different nodes have different turns.
	turns = 8
	// smallNAR is the size in bytes up to which a NAR is small: that of an
	// average chunk. Fetching it from a cache costs little but a round trip, so
	// nothing is gained by looking for it alone.
	smallNAR = 64 << 10
)

// plan decides which keys are announced where there is a limit: as many as it
// allows, by value:
//
//  1. The metadata keys of roots, then their content keys: who holds a root is
//     likely to hold all that is reached from it, and is asked for all that in
//     one batch.
//  2. The content keys of other NARs, the large and rare first: one that lookups
//     have shown with n other providers counts for 1/(n+1) of its size.
//  3. The metadata keys whose turn it is, of paths that are no roots.
//  4. The content keys of small NARs. Each is in the closure of a root, and so
//     found through that.
//
// What is chosen follows from the paths, the limit, the cycle and the node's ID,
// and from nothing else.
type plan struct {
	// seen says how many other providers of a NAR are known.
	seen func(nix.NARHash) int
	// offset makes the turns of different nodes differ.
	offset uint32

	nars  map[nix.NARHash]plannedNAR
	paths map[nix.HashPart]plannedPath
}

// plannedNAR stands for a content key.
type plannedNAR struct {
	size int64
	// paths counts the paths with this NAR, and roots those of them that are.
	paths, roots uint32
	// seen is the number of other providers.
	seen   uint8
	chosen bool
}

// plannedPath stands for a metadata key.
type plannedPath struct{ root, chosen bool }

func newPlan(self peer.ID, seen func(nix.NARHash) int) *plan {
	own := placeOf(string(self))
	return &plan{
		seen:   seen,
		offset: binary.BigEndian.Uint32(own[:]),
		nars:   make(map[nix.NARHash]plannedNAR),
		paths:  make(map[nix.HashPart]plannedPath),
	}
}

// len is the number of keys without a limit.
func (p *plan) len() int { return len(p.nars) + len(p.paths) }

// holds reports whether there is a path with this NAR.
func (p *plan) holds(h nix.NARHash) bool {
	_, ok := p.nars[h]
	return ok
}

// apply brings a change of the catalog into the plan. It returns the keys that
// there are no more, chosen before or not.
func (p *plan) apply(c *share.Change) (gone []mh.Multihash) {
	// A path that comes again, as a root or with another NAR, keeps its key.
	removed := make(map[nix.HashPart]plannedPath, len(c.Removed))
	for _, k := range c.Removed {
		path, ok := p.paths[k.HashPart]
		if !ok {
			continue
		}
		removed[k.HashPart] = path
		delete(p.paths, k.HashPart)
		p.count(&k, -1)
	}
	for _, k := range c.Added {
		path := removed[k.HashPart]
		delete(removed, k.HashPart)
		path.root = k.Root
		p.paths[k.HashPart] = path
		if _, ok := p.nars[k.NARHash]; !ok {
			p.nars[k.NARHash] = plannedNAR{size: k.NARSize, seen: uint8(min(p.seen(k.NARHash), math.MaxUint8))}
		}
		p.count(&k, 1)
	}
	for part := range removed {
		gone = append(gone, MetadataKey(part).Hash())
	}
	for _, k := range c.Removed {
		if n, ok := p.nars[k.NARHash]; ok && n.paths == 0 {
			delete(p.nars, k.NARHash)
			gone = append(gone, ContentKey(k.NARHash).Hash())
		}
	}
	return gone
}

// count adds a path to its NAR, or takes it away.
func (p *plan) count(k *share.Key, by int) {
	n := p.nars[k.NARHash]
	n.paths += uint32(by)
	if k.Root {
		n.roots += uint32(by)
	}
	p.nars[k.NARHash] = n
}

// counts says what has become of all keys.
type counts struct {
	// chosen are to be announced, skipped are beyond the limit, and resting wait
	// for their turn.
	chosen, skipped, resting int
}

// choose chooses up to limit keys, and returns what that has changed.
func (p *plan) choose(limit int, now time.Time) (delta, counts) {
	turn := uint32(cycleOf(now) % turns)
	ranks := make([]uint64, 0, p.len())
	for h, n := range p.nars {
		ranks = append(ranks, n.rank(h))
	}
	for part, path := range p.paths {
		if r := p.rank(part, path, turn); r > 0 {
			ranks = append(ranks, r)
		}
	}
	c := counts{chosen: min(len(ranks), limit)}
	c.skipped = len(ranks) - c.chosen
	c.resting = p.len() - len(ranks)
	least := uint64(1)
	switch {
	case c.chosen == 0:
		least = math.MaxUint64
	case c.skipped > 0:
		slices.Sort(ranks)
		least = ranks[c.skipped]
	}
	var d delta
	for h, n := range p.nars {
		if chosen := n.rank(h) >= least; chosen != n.chosen {
			n.chosen = chosen
			p.nars[h] = n
			d.note(ContentKey(h).Hash(), chosen, false)
		}
	}
	for part, path := range p.paths {
		if chosen := p.rank(part, path, turn) >= least; chosen != path.chosen {
			path.chosen = chosen
			p.paths[part] = path
			d.note(MetadataKey(part).Hash(), chosen, !path.root)
		}
	}
	return d, c
}

func (d *delta) note(key mh.Multihash, chosen, turn bool) {
	switch {
	case !chosen:
		d.gone = append(d.gone, key)
	case turn:
		d.later = append(d.later, key)
	default:
		d.now = append(d.now, key)
	}
}

// cycleOf counts cycles since 1970.
func cycleOf(t time.Time) int64 { return t.UnixNano() / int64(cycle) }

// The classes of keys, from the least to the most valuable.
const (
	_ = iota
	classSmall
	classTurn
	classLarge
	classRoot
	classRootMetadata
)

// rank orders keys by value. Equal ones are ordered by tie, the beginning of the
// key: the choice must not change with the order of the paths.
func rank(class uint64, value int64, tie []byte) uint64 {
	const valueBits, tieBits = 35, 26 // beside 3 for the class; 2^35 is twice the largest NAR
	value = min(max(value, 0), 1<<valueBits-1)
	return class<<(valueBits+tieBits) | uint64(value)<<tieBits | uint64(binary.BigEndian.Uint32(tie))>>(32-tieBits)
}

func (n plannedNAR) rank(h nix.NARHash) uint64 {
	class := uint64(classLarge)
	switch {
	case n.roots > 0:
		class = classRoot
	case n.size <= smallNAR:
		class = classSmall
	}
	return rank(class, n.size/int64(n.seen+1), h[:])
}

// rank returns 0 for a key that is not to be announced in this turn.
func (p *plan) rank(part nix.HashPart, path plannedPath, turn uint32) uint64 {
	switch {
	case path.root:
		return rank(classRootMetadata, 0, part[:])
	case (binary.BigEndian.Uint32(part[:])+p.offset)%turns == turn:
		return rank(classTurn, 0, part[:])
	}
	return 0
}
