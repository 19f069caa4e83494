package reuse

import (
	"encoding/binary"
	"sync/atomic"
)

const (
	// filterProbes and filterShare, the bits for each entry, make a Bloom filter
	// that is wrong about one sum in a hundred (Bloom, "Space/Time Trade-offs in
	// Hash Coding with Allowable Errors", CACM 13(7), 1970).
	filterProbes = keyedBytes / 4
	filterShare  = 10
)

// filter says of most sums that are not in the index that they are not, in less
// than a microsecond, where the database takes ten. Sums are as random as any
// hash of them would be, so their own first bytes say which bits are theirs.
type filter struct {
	bits []uint64 // changed atomically
}

// newFilter returns a filter for an index of this many bytes.
func newFilter(maxBytes int64) *filter {
	return &filter{bits: make([]uint64, maxBytes/entryCost*filterShare/64+1)}
}

// probe returns the word and the bit of a sum's i-th probe.
func (f *filter) probe(sum []byte, i int) (word *uint64, bit uint64) {
	n := uint64(binary.LittleEndian.Uint32(sum[4*i:]))
	return &f.bits[n*uint64(len(f.bits))>>32], 1 << (n & 63)
}

func (f *filter) add(sum []byte) {
	for i := range filterProbes {
		word, bit := f.probe(sum, i)
		atomic.OrUint64(word, bit)
	}
}

// has reports whether a sum may be among those that were added.
func (f *filter) has(sum []byte) bool {
	for i := range filterProbes {
		word, bit := f.probe(sum, i)
		if atomic.LoadUint64(word)&bit == 0 {
			return false
		}
	}
	return true
}
