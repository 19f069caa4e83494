package daemon

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Limits on what is accepted from a daemon. None of them is part of the
// protocol; each is far above what a real store needs.
const (
	// maxPathLen is for a store path, in bytes; a longer one is malformed.
	maxPathLen = 1 << 10
	// maxTextLen is for error and log messages, in bytes.
	maxTextLen = 1 << 20
	// maxPaths is for a whole store.
	maxPaths = 16 << 20
	// maxReferences is for one path; the largest genuine ones have about 4,000.
	maxReferences = 1 << 17
	maxSignatures = 256
	// maxMessages is for the messages before an answer, and for the parts of
	// one message.
	maxMessages = 1 << 16
)

// reader decodes the protocol's words: 64-bit little-endian integers, and
// strings as a length, the bytes, and zeros up to a multiple of 8. The first
// error sticks, and every later call returns zero.
type reader struct {
	r   *bufio.Reader
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		r.err = err
	}
}

func (r *reader) uint64() uint64 {
	var b [8]byte
	r.read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// read fills b, with zeros after an error.
func (r *reader) read(b []byte) {
	if r.err == nil {
		if _, err := io.ReadFull(r.r, b); err != nil {
			r.fail(err)
		}
	}
	if r.err != nil {
		clear(b)
	}
}

// count reads the length of a list or string, at most limit.
func (r *reader) count(what string, limit int) int {
	n := r.uint64()
	if n > uint64(limit) {
		r.fail(fmt.Errorf("%s of length %d, more than %d", what, n, limit))
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *reader) bool() bool { return r.uint64() != 0 }

// string reads a string of at most limit bytes, which must be small enough to
// be allocated on the sender's word.
func (r *reader) string(limit int) string {
	b := make([]byte, r.count("string", limit))
	r.read(b)
	if pad := len(b) % 8; pad != 0 {
		var zeros [8]byte
		r.read(zeros[pad:])
		if zeros != [8]byte{} {
			r.fail(errors.New("string is not padded with zeros"))
		}
	}
	if r.err != nil {
		return ""
	}
	return string(b)
}

// strings reads a list of up to limit strings of up to size bytes.
func (r *reader) strings(what string, limit, size int) []string {
	var list []string
	for range r.count(what, limit) {
		s := r.string(size)
		if r.err != nil {
			return nil
		}
		list = append(list, s)
	}
	return list
}

// appendUint64 and appendString encode what reader decodes.
func appendUint64(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }

func appendString(b []byte, s string) []byte {
	b = append(appendUint64(b, uint64(len(s))), s...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}
