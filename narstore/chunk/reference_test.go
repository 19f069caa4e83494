package chunk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"regexp"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// This file makes manifests as docs/protocol.md says, word for word and with no
// regard to speed or memory: the oracle for Build.

var runPattern = regexp.MustCompile(`/([0-9abcdfghijklmnpqrsvwxyz]{32})-`)

// referenceManifest returns the manifest of a NAR of more than 16 KiB.
func referenceManifest(nar []byte) *chunk.Manifest {
	masked := bytes.Clone(nar)
	runs := runPattern.FindAllIndex(nar, -1)
	for _, r := range runs {
		clear(masked[r[0]+1 : r[1]-1])
	}
	m := &chunk.Manifest{NARHash: sha256.Sum256(nar), NARSize: int64(len(nar))}
	length := int64(48)
	for start := 0; start < len(nar); {
		n := referenceCut(masked[start:])
		for _, r := range runs {
			if r[0] < start+n && start+n < r[1] {
				n = r[1] - start
			}
		}
		c := chunk.Chunk{Offset: int64(start), Length: n, Sum: sha256.Sum256(nar[start : start+n])}
		length += referenceMask(m, &c, nar[start:start+n], length)
		m.Chunks = append(m.Chunks, c)
		start += n
	}
	return m
}

// referenceMask sets the masked fields of a chunk, if it may have any, and
// returns the length of its entry.
func referenceMask(m *chunk.Manifest, c *chunk.Chunk, data []byte, before int64) int64 {
	plain := int64(len(binary.AppendUvarint(nil, uint64(len(data)))) + 32 + 1)
	runs := runPattern.FindAllSubmatchIndex(data, -1)
	if len(runs) == 0 || len(runs) > 1024 {
		return plain
	}
	masked := bytes.Clone(data)
	parts := bytes.Clone(nil)
	table := append([]nix.HashPart(nil), m.HashParts...)
	length := plain - 1 + int64(len(binary.AppendUvarint(nil, uint64(len(runs))))) + 32
	var indexes []uint32
	for _, r := range runs {
		clear(masked[r[2]:r[3]])
		part, err := nix.ParseHashPart(string(data[r[2]:r[3]]))
		if err != nil {
			panic(err)
		}
		index := 0
		for index < len(table) && table[index] != part {
			index++
		}
		if index == len(table) {
			table = append(table, part)
			parts = append(parts, part[:]...)
		}
		indexes = append(indexes, uint32(index))
		length += int64(len(binary.AppendUvarint(nil, uint64(index))))
	}
	length += int64(len(parts))
	if before+length > 65536+(c.Offset+int64(c.Length))/256 {
		return plain
	}
	m.HashParts = table
	c.Masked, c.MaskedSum, c.Runs = true, sha256.Sum256(masked), indexes
	return length
}

// referenceCut returns the length of the first chunk of masked bytes.
func referenceCut(masked []byte) int {
	for n := 16384; n < len(masked) && n < 262144; n++ {
		limit := uint64(1) << 46
		if n >= 65536 {
			limit = 1 << 50
		}
		if referenceGear(masked[n-64:n]) < limit {
			return n
		}
	}
	return min(len(masked), 262144)
}

var referenceTable = func() (t [256]uint64) {
	for i := range t {
		sum := sha256.Sum256([]byte("nar-p2p gear " + string([]byte{byte(i)})))
		t[i] = binary.BigEndian.Uint64(sum[:8])
	}
	return t
}()

// referenceGear is the gear hash of exactly 64 bytes.
func referenceGear(window []byte) uint64 {
	var h uint64
	for i, c := range window {
		h += referenceTable[c] << (63 - i)
	}
	return h
}
