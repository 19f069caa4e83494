package substituter

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// memorySize bounds what the records in memory take, in bytes: some 5,000 of
	// the usual 1 KB, which is the closure of a system.
	memorySize = 16 << 20
	// leastCost is what a record takes in memory beside its text and its
	// references, in bytes, and referenceCost what a reference takes.
	leastCost     = 1 << 10
	referenceCost = 40
)

// rendered is a record together with the answer that Nix gets.
type rendered struct {
	*record
	text          []byte
	contentLength []string // as a header has it
	// given is when this was last acted upon, see Server.given.
	given atomic.Int64
}

func render(r *record) *rendered {
	text := r.forNix().Bytes()
	return &rendered{record: r, text: text, contentLength: []string{strconv.Itoa(len(text))}}
}

// cost is about what the record takes in memory, in bytes: the text from which
// it was parsed is in there too.
func (r *rendered) cost() int {
	return leastCost + 2*len(r.text) + referenceCost*len(r.info.References)
}

// memory holds the records that were asked for lately, checked and rendered.
type memory struct {
	limit int // bytes

	mu   sync.Mutex
	size int // bytes
	lru  *simplelru.LRU[nix.HashPart, *rendered]
	// generation counts the records that were put or dropped. What was read from
	// the disk before the last of them may be out of date.
	generation uint64
}

func newMemory(limit int) *memory {
	m := &memory{limit: limit}
	lru, err := simplelru.NewLRU(limit/leastCost+1, func(_ nix.HashPart, r *rendered) { m.size -= r.cost() })
	if err != nil {
		panic("substituter: " + err.Error()) // the size is positive
	}
	m.lru = lru
	return m
}

// get returns the record of a hash part, or nil.
func (m *memory) get(part nix.HashPart) *rendered {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, _ := m.lru.Get(part)
	return r
}

// put holds a record in the place of the one before.
func (m *memory) put(r *rendered) *rendered {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generation++
	m.hold(r)
	return r
}

// drop forgets the record of a hash part, which is not to be believed any more.
func (m *memory) drop(part nix.HashPart) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generation++
	m.lru.Remove(part)
}

// clear forgets all records.
func (m *memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generation++
	m.lru.Purge()
}

// now returns the generation.
func (m *memory) now() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.generation
}

// add holds a record that was read from the disk, unless the generation has
// passed, or one is there by now. It returns the one to go on with.
func (m *memory) add(r *rendered, generation uint64) *rendered {
	m.mu.Lock()
	defer m.mu.Unlock()
	if held, ok := m.lru.Get(r.info.StorePath.HashPart()); ok {
		return held
	}
	if m.generation == generation {
		m.hold(r)
	}
	return r
}

func (m *memory) hold(r *rendered) {
	part := r.info.StorePath.HashPart()
	m.lru.Remove(part)
	m.lru.Add(part, r)
	m.size += r.cost()
	for m.size > m.limit {
		m.lru.RemoveOldest()
	}
}

// ranks numbers the records from the one whose use is longest ago, which is 1.
func (m *memory) ranks() map[nix.HashPart]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	ranks := make(map[nix.HashPart]int, m.lru.Len())
	for i, part := range m.lru.Keys() {
		ranks[part] = i + 1
	}
	return ranks
}
