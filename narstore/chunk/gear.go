package chunk

import (
	"crypto/sha256"
	"encoding/binary"
)

const (
	// gearSeed and one byte hashed give that byte's entry of the gear table.
	gearSeed = "nar-p2p gear "
	// gearWindow is the number of bytes that the 64-bit gear hash remembers.
	gearWindow = 64
	// Normalised chunking at level 2 around log2(AvgSize) = 16: the 18 highest
	// bits must be zero below AvgSize, the 14 highest from AvgSize on. The
	// highest bits are those that the whole window bears on.
	strictBelow = 1 << (64 - 18)
	looseBelow  = 1 << (64 - 14)
)

var gear = func() (t [256]uint64) {
	for i := range t {
		sum := sha256.Sum256(append([]byte(gearSeed), byte(i)))
		t[i] = binary.BigEndian.Uint64(sum[:])
	}
	return t
}()

// cut returns the length of the chunk with which the masked bytes b begin,
// before it is moved out of a run. b holds at least MaxSize bytes or all that
// remain.
func cut(b []byte) int {
	if len(b) <= MinSize {
		return len(b)
	}
	b = b[:min(len(b), MaxSize)]
	var h uint64
	for _, c := range b[MinSize-gearWindow : MinSize-1] {
		h = h<<1 + gear[c]
	}
	// A chunk of n bytes ends with b[n-1]: AvgSize-1 is the last strict length.
	strict := min(len(b), AvgSize-1)
	h, n := search(h, b[MinSize-1:strict], strictBelow)
	if n > 0 {
		return MinSize - 1 + n
	}
	if _, n = search(h, b[strict:], looseBelow); n > 0 {
		return strict + n
	}
	return len(b)
}

// search rolls the hash over b until it is less than below, and returns it and
// the number of bytes taken, or 0 where that never happens.
func search(h uint64, b []byte, below uint64) (uint64, int) {
	for i, c := range b {
		h = h<<1 + gear[c]
		if h < below {
			return h, i + 1
		}
	}
	return h, 0
}
