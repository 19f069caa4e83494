package share

import (
	"encoding/binary"
	"iter"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Key is what there is to announce of one shareable path.
type Key struct {
	HashPart nix.HashPart
	// NARHash may be shared by several paths, such as all empty directories.
	NARHash nix.NARHash
	// NARSize is in bytes.
	NARSize int64
	// Root is true for the paths from which the others are reached: those that
	// nothing else in the catalog refers to, and those that something refers to
	// which is not shared, as a profile does to what was installed in it.
	Root bool
}

// none ends a chain of rows.
const none = -1

// row is one path of an index: 80 bytes.
type row struct {
	part     nix.HashPart
	nextPart int32
	hash     nix.NARHash
	nextHash int32
	size     int64
	// since is the index's generation in which the row was added; 0 marks a
	// free row.
	since uint32
	referrers
	// doubtful rows are to be judged by the rule of now before a peer hears of
	// them; unlisted ones are still to come in a new listing of the store.
	doubtful, unlisted bool
}

func (r *row) key() Key {
	return Key{HashPart: r.part, NARHash: r.hash, NARSize: r.size, Root: r.root()}
}

// referrers is what kinds of other paths refer to one.
type referrers uint8

const (
	// shared referrers are in the catalog.
	shared referrers = 1 << iota
	// unshared ones are in the store only.
	unshared
)

func (r referrers) root() bool { return r != shared }

// index finds paths by hash part and by NAR hash. Both are cryptographic hashes
// already, so their own bytes select the chain. 100,000 paths take about 9 MB,
// half of what two maps would.
type index struct {
	rows []row
	free []int32
	// byPart and byHash hold the first row of every chain. Their length is the
	// same power of two, so that they can be rebuilt together.
	byPart, byHash []int32
	len            int
}

func chain(heads []int32, key []byte) *int32 {
	return &heads[binary.LittleEndian.Uint64(key)&uint64(len(heads)-1)]
}

// find returns the row of a hash part, or none.
func (x *index) find(part nix.HashPart) int32 {
	if x.len == 0 {
		return none
	}
	at := *chain(x.byPart, part[:])
	for at != none && x.rows[at].part != part {
		at = x.rows[at].nextPart
	}
	return at
}

// withHash yields the rows of all paths with this NAR hash.
func (x *index) withHash(hash nix.NARHash) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		if x.len == 0 {
			return
		}
		for at := *chain(x.byHash, hash[:]); at != none; at = x.rows[at].nextHash {
			if x.rows[at].hash == hash && !yield(at) {
				return
			}
		}
	}
}

// add adds a path whose hash part is not in the index.
func (x *index) add(k Key, since uint32, by referrers) {
	var at int32
	if n := len(x.free); n > 0 {
		at, x.free = x.free[n-1], x.free[:n-1]
	} else {
		at = int32(len(x.rows))
		x.rows = append(x.rows, row{})
	}
	x.rows[at] = row{part: k.HashPart, hash: k.NARHash, size: k.NARSize, since: since, referrers: by}
	x.len++
	if x.len > len(x.byPart) {
		x.rebuild()
	} else {
		x.link(at)
	}
}

// remove takes the row out of the index.
func (x *index) remove(at int32) {
	r := &x.rows[at]
	link := chain(x.byPart, r.part[:])
	for *link != at {
		link = &x.rows[*link].nextPart
	}
	*link = r.nextPart
	link = chain(x.byHash, r.hash[:])
	for *link != at {
		link = &x.rows[*link].nextHash
	}
	*link = r.nextHash
	*r = row{}
	x.free = append(x.free, at)
	x.len--
}

func (x *index) link(at int32) {
	r := &x.rows[at]
	part, hash := chain(x.byPart, r.part[:]), chain(x.byHash, r.hash[:])
	r.nextPart, r.nextHash = *part, *hash
	*part, *hash = at, at
}

// rebuild makes room for twice as many paths.
func (x *index) rebuild() {
	size := max(64, 2*len(x.byPart))
	x.byPart, x.byHash = make([]int32, size), make([]int32, size)
	for i := range size {
		x.byPart[i], x.byHash[i] = none, none
	}
	for at := range x.rows {
		if x.rows[at].since != 0 {
			x.link(int32(at))
		}
	}
}
