package chunk

import (
	"encoding/binary"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// magic begins every encoding; its last byte is the version.
	magic      = "nar-p2p\x01"
	headerSize = len(magic) + 8 + len(nix.NARHash{})
	// plainSize is the longest entry without masked fields: a length of three
	// bytes, the sum and a run count of zero.
	plainSize = 3 + len(Sum{}) + 1
	// budgetBase and budgetShare bound an encoding: masked fields are left out
	// where the encoding up to and with their chunk would exceed budgetBase bytes
	// plus one for every budgetShare bytes of the NAR up to the chunk's end.
	// Plain entries need less than their share.
	budgetBase  = 64 << 10
	budgetShare = 256
)

// budget is the greatest length of an encoding whose last entry is masked and
// ends at this offset of the NAR.
func budget(end int64) int64 { return budgetBase + end/budgetShare }

// MaxEncodedSize returns the length in bytes of the longest encoding of a
// manifest for a NAR of this size. A short last chunk can exceed its share by
// one plain entry.
func MaxEncodedSize(narSize int64) int64 {
	if narSize <= ImplicitSize {
		return 0
	}
	return budget(narSize) + int64(plainSize)
}

// Encode returns the canonical encoding of a manifest that Build or Decode
// made.
func (m *Manifest) Encode() []byte {
	if m.NARSize <= ImplicitSize {
		return nil
	}
	b := appendHeader(make([]byte, 0, headerSize+len(m.Chunks)*plainSize), m.NARHash, m.NARSize)
	known := 0
	for i := range m.Chunks {
		b, known = appendEntry(b, &m.Chunks[i], m.HashParts, known)
	}
	return b
}

func appendHeader(b []byte, hash nix.NARHash, size int64) []byte {
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	return append(b, hash[:]...)
}

// appendEntry appends the entry of a chunk, of whose hash parts the first known
// have appeared before, and returns how many have appeared now.
func appendEntry(b []byte, c *Chunk, parts []nix.HashPart, known int) ([]byte, int) {
	b = binary.AppendUvarint(b, uint64(c.Length))
	b = append(b, c.Sum[:]...)
	if !c.Masked {
		return append(b, 0), known
	}
	b = binary.AppendUvarint(b, uint64(len(c.Runs)))
	b = append(b, c.MaskedSum[:]...)
	for _, index := range c.Runs {
		b = binary.AppendUvarint(b, uint64(index))
		if int(index) == known {
			b = append(b, parts[index][:]...)
			known++
		}
	}
	return b, known
}

// encoder makes a manifest and its encoding entry by entry.
type encoder struct {
	manifest *Manifest
	// index finds a run's text in the manifest's HashParts.
	index map[[textLength]byte]uint32
	// piece is what was not emitted yet, length that of all of the encoding.
	piece  []byte
	length int64
	offset int64
}

func newEncoder(hash nix.NARHash, size int64) *encoder {
	e := &encoder{
		manifest: &Manifest{NARHash: hash, NARSize: size},
		index:    make(map[[textLength]byte]uint32),
	}
	e.piece = appendHeader(nil, hash, size)
	e.length = int64(len(e.piece))
	return e
}

// add appends a chunk. It is left unmasked where the budget demands it.
func (e *encoder) add(p *pending) {
	c := Chunk{Offset: e.offset, Length: len(p.data), Sum: p.sum}
	e.offset += int64(c.Length)
	known := len(e.manifest.HashParts)
	before := len(e.piece)
	if p.masked {
		masked := c
		masked.Masked, masked.MaskedSum, masked.Runs = true, p.maskedSum, e.name(p.runs)
		e.piece, _ = appendEntry(e.piece, &masked, e.manifest.HashParts, known)
		if e.length+int64(len(e.piece)-before) <= budget(e.offset) {
			c = masked
		} else {
			e.forget(p.runs, known)
			e.piece = e.piece[:before]
		}
	}
	if !c.Masked {
		e.piece, _ = appendEntry(e.piece, &c, nil, known)
	}
	e.length += int64(len(e.piece) - before)
	e.manifest.Chunks = append(e.manifest.Chunks, c)
}

// name returns the indexes of the runs' hash parts and adds those that are new.
func (e *encoder) name(runs []run) []uint32 {
	indexes := make([]uint32, len(runs))
	for i := range runs {
		index, ok := e.index[runs[i].text]
		if !ok {
			index = uint32(len(e.manifest.HashParts))
			e.index[runs[i].text] = index
			e.manifest.HashParts = append(e.manifest.HashParts, hashPart(runs[i].text))
		}
		indexes[i] = index
	}
	return indexes
}

// forget removes the runs' hash parts but for the first known of all.
func (e *encoder) forget(runs []run, known int) {
	for i := range runs {
		if int(e.index[runs[i].text]) >= known {
			delete(e.index, runs[i].text)
		}
	}
	e.manifest.HashParts = e.manifest.HashParts[:known]
}

// flush hands what was not emitted yet to emit.
func (e *encoder) flush(emit func(piece []byte) error) error {
	if len(e.piece) == 0 || e.manifest.NARSize <= ImplicitSize {
		return nil
	}
	err := emit(e.piece)
	e.piece = e.piece[:0]
	return err
}
