package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// field is a part of the encoding.
type field int

const (
	fieldHeader field = iota
	fieldLength
	fieldSum
	fieldRuns
	fieldMaskedSum
	fieldIndex
	fieldPart
	fieldNone // the manifest is complete
)

// size returns the field's length in bytes, or 0 for a varint.
func (f field) size() int {
	switch f {
	case fieldHeader:
		return headerSize
	case fieldSum, fieldMaskedSum:
		return len(Sum{})
	case fieldPart:
		return len(nix.HashPart{})
	default:
		return 0
	}
}

// maxVarint is the longest varint of an encoding in bytes: chunk lengths are
// below 2^21, and so are run counts and, by the budget, indexes below 2^28.
const maxVarint = 4

// Decode parses the encoding of the manifest of a NAR. It accepts the canonical
// encoding only: what it accepts encodes to the same bytes again.
func Decode(b []byte, hash nix.NARHash, size int64) (*Manifest, error) {
	d := NewDecoder(hash, size)
	if _, err := d.Write(b); err != nil {
		return nil, err
	}
	return d.Finish()
}

// Decoder parses an encoding that arrives in pieces. It holds no more memory
// than a small multiple of what it was given. Its methods must not be called
// concurrently.
type Decoder struct {
	m     Manifest
	known map[nix.HashPart]struct{}
	// next is the field that the bytes to come begin or continue, and buf[:n]
	// what is there of it.
	next field
	buf  [headerSize]byte
	n    int
	// chunk is the entry being read, runs how many of its runs are to come.
	chunk Chunk
	runs  int
	// offset is the end of the last complete chunk, length that of the encoding
	// up to the last complete field.
	offset, length int64
	err            error
}

// NewDecoder returns a decoder of the manifest of the NAR with this hash and
// size in bytes.
func NewDecoder(hash nix.NARHash, size int64) *Decoder {
	d := &Decoder{m: Manifest{NARHash: hash, NARSize: size}, known: make(map[nix.HashPart]struct{})}
	switch {
	case size <= 0 || size > MaxNARSize:
		d.err = fmt.Errorf("chunk: manifest: no NAR of %d bytes is exchanged", size)
	case size <= ImplicitSize:
		d.m = *implicit(hash, size)
		d.next = fieldNone
	}
	return d
}

// Chunks returns the chunks that are complete so far. The slice stays as it is
// while more are added.
func (d *Decoder) Chunks() []Chunk { return slices.Clip(d.m.Chunks) }

// HashParts returns the hash parts that have appeared so far, among them all that
// the complete chunks name. The slice stays as it is while more are added.
func (d *Decoder) HashParts() []nix.HashPart { return slices.Clip(d.m.HashParts) }

// Write takes the next piece. After an error it returns that error for ever.
func (d *Decoder) Write(p []byte) (int, error) {
	taken := 0
	for taken < len(p) && d.err == nil {
		if d.next == fieldNone {
			d.err = errors.New("chunk: manifest: bytes behind the end")
			break
		}
		n, whole := d.take(p[taken:])
		taken += n
		if whole {
			d.length += int64(d.n)
			if err := d.accept(d.buf[:d.n]); err != nil {
				d.err = fmt.Errorf("chunk: manifest: entry %d: %w", len(d.m.Chunks), err)
			}
			d.n = 0
		}
	}
	return taken, d.err
}

// Finish returns the manifest once all of it was written.
func (d *Decoder) Finish() (*Manifest, error) {
	if d.err != nil {
		return nil, d.err
	}
	if d.next != fieldNone {
		return nil, fmt.Errorf("chunk: manifest ends early, at %d of %d bytes of the NAR", d.offset, d.m.NARSize)
	}
	return &d.m, nil
}

// take moves bytes of the next field from p to buf and reports whether the
// field is whole now.
func (d *Decoder) take(p []byte) (n int, whole bool) {
	if size := d.next.size(); size > 0 {
		n = copy(d.buf[d.n:size], p)
		d.n += n
		return n, d.n == size
	}
	for n < len(p) && d.n < maxVarint {
		c := p[n]
		d.buf[d.n] = c
		n++
		d.n++
		if c < 0x80 {
			return n, true
		}
	}
	return n, d.n == maxVarint
}

// accept takes a whole field and says by next what follows it.
func (d *Decoder) accept(b []byte) error {
	switch d.next {
	case fieldHeader:
		return d.acceptHeader(b)
	case fieldLength:
		return d.acceptLength(b)
	case fieldSum:
		d.chunk.Sum = Sum(b)
		d.next = fieldRuns
		return nil
	case fieldRuns:
		return d.acceptRuns(b)
	case fieldMaskedSum:
		d.chunk.MaskedSum = Sum(b)
		d.next = fieldIndex
		return nil
	case fieldIndex:
		return d.acceptIndex(b)
	case fieldPart:
		return d.acceptPart(nix.HashPart(b))
	default:
		panic("chunk: no field is expected")
	}
}

func (d *Decoder) acceptHeader(b []byte) error {
	var want [headerSize]byte
	appendHeader(want[:0], d.m.NARHash, d.m.NARSize)
	if [headerSize]byte(b) != want {
		return errors.New("header is not that of this NAR")
	}
	d.next = fieldLength
	return nil
}

func (d *Decoder) acceptLength(b []byte) error {
	n, err := uvarint(b)
	if err != nil {
		return fmt.Errorf("length: %w", err)
	}
	rest := uint64(d.m.NARSize - d.offset)
	switch {
	case n > MaxLength || n > rest:
		return fmt.Errorf("length %d is above %d", n, min(MaxLength, rest))
	case n == 0 || n < MinSize && n != rest:
		return fmt.Errorf("length %d is below %d", n, MinSize)
	}
	d.chunk = Chunk{Offset: d.offset, Length: int(n)}
	d.next = fieldSum
	return nil
}

func (d *Decoder) acceptRuns(b []byte) error {
	n, err := uvarint(b)
	if err != nil {
		return fmt.Errorf("run count: %w", err)
	}
	if n == 0 {
		return d.acceptChunk()
	}
	if limit := uint64(min(MaxRuns, d.chunk.Length/runLength)); n > limit {
		return fmt.Errorf("run count %d is above %d", n, limit)
	}
	d.chunk.Masked = true
	d.chunk.Runs = make([]uint32, 0, n)
	d.runs = int(n)
	d.next = fieldMaskedSum
	return nil
}

func (d *Decoder) acceptIndex(b []byte) error {
	n, err := uvarint(b)
	if err != nil {
		return fmt.Errorf("hash part index: %w", err)
	}
	if n > uint64(len(d.m.HashParts)) {
		return fmt.Errorf("hash part index %d is above %d", n, len(d.m.HashParts))
	}
	d.chunk.Runs = append(d.chunk.Runs, uint32(n))
	if n == uint64(len(d.m.HashParts)) {
		d.next = fieldPart
		return nil
	}
	return d.acceptRun()
}

func (d *Decoder) acceptPart(part nix.HashPart) error {
	if _, twice := d.known[part]; twice {
		return fmt.Errorf("hash part %s stands in the table twice", part)
	}
	d.known[part] = struct{}{}
	d.m.HashParts = append(d.m.HashParts, part)
	return d.acceptRun()
}

func (d *Decoder) acceptRun() error {
	if d.runs--; d.runs > 0 {
		d.next = fieldIndex
		return nil
	}
	if limit := budget(d.offset + int64(d.chunk.Length)); d.length > limit {
		return fmt.Errorf("masked fields exceed the %d bytes up to here", limit)
	}
	return d.acceptChunk()
}

// acceptChunk adds the entry, which is complete.
func (d *Decoder) acceptChunk() error {
	if int64(d.chunk.Length) == d.m.NARSize && d.chunk.Sum != Sum(d.m.NARHash) {
		return errors.New("the only chunk's sum is not the NAR hash")
	}
	d.m.Chunks = append(d.m.Chunks, d.chunk)
	d.offset += int64(d.chunk.Length)
	d.next = fieldLength
	if d.offset == d.m.NARSize {
		d.next = fieldNone
	}
	return nil
}

// uvarint parses a varint that fills b. Only the shortest writing is accepted.
func uvarint(b []byte) (uint64, error) {
	v, n := binary.Uvarint(b)
	if n != len(b) {
		return 0, fmt.Errorf("varint is longer than %d bytes", maxVarint)
	}
	if n > 1 && b[n-1] == 0 {
		return 0, errors.New("varint is not minimal")
	}
	return v, nil
}
