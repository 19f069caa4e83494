package nar

import "encoding/binary"

// AroundFile returns what stands before and behind the contents in the NAR of
// one regular file of size bytes that is not executable.
func AroundFile(size int64) (before, behind []byte) {
	before = appendStrings(nil, magic, "(", "type", Regular.String(), "contents")
	before = binary.LittleEndian.AppendUint64(before, uint64(size))
	behind = append(behind, zeros[:padding(size)]...)
	return before, append(behind, closing...)
}
