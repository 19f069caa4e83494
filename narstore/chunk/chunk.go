// Package chunk cuts NARs into content-defined chunks and describes them in
// manifests, so that a NAR can be fetched from several peers at once and every
// piece be checked before the whole is there.
//
// A manifest is a function of the NAR's bytes alone: all honest peers have the
// same one. docs/protocol.md defines it byte for byte. In short:
//
//   - A run is '/', 32 characters of Nix's base-32 alphabet, '-': a store path's
//     hash part in its usual surroundings. Masked bytes are the NAR's bytes with
//     the 32 characters of every run set to zero.
//   - Boundaries are content-defined over the masked bytes by FastCDC (Xia et
//     al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for
//     Data Deduplication", USENIX ATC 2016). One that falls inside a run moves
//     behind it, so that every chunk can be masked by itself. A rebuild that
//     changes nothing but hash parts keeps its boundaries and masked sums.
//   - A NAR of up to ImplicitSize bytes is one chunk, whose sum is the NAR hash;
//     its manifest is implied and its encoding is empty.
//
// The gear hash is written here, in some twenty lines, rather than taken from
// github.com/PlakarKorp/go-cdc-chunkers, because boundaries are frozen with the
// wire protocol: that package's gear table is a pasted constant without a
// formula, and its hash starts anew at the minimum size, so that the first cuts
// it considers depend on where the chunk began as well as on the content.
package chunk

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// MinSize is the shortest chunk in bytes, save a NAR's last one.
	MinSize = 16 << 10
	// AvgSize is where the search for a boundary becomes less strict, in bytes;
	// the mean length on random content is some 10 % above it.
	AvgSize = 64 << 10
	// MaxSize is the length in bytes at which a boundary is set in any case.
	MaxSize = 256 << 10
	// MaxLength is the longest chunk in bytes: a boundary just behind the '/' of
	// a run moves by 33.
	MaxLength = MaxSize + runLength - 1
	// ImplicitSize is the size in bytes up to which a NAR is one chunk and has
	// no manifest.
	ImplicitSize = 16 << 10
	// MaxNARSize is the size in bytes above which NARs are not exchanged between
	// peers. It bounds manifests to about 64 MiB.
	MaxNARSize = 16 << 30
	// MaxRuns is the number of runs above which a chunk is left unmasked.
	MaxRuns = 1024
)

// ErrCorrupt says that bytes are not those of the NAR hash and size.
var ErrCorrupt = errors.New("chunk: bytes do not match the NAR hash")

// Sum is a sha-256 of a chunk.
type Sum [sha256.Size]byte

// String returns the sum in hexadecimal.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// Root is the sha-256 of a manifest's encoding.
type Root [sha256.Size]byte

// String returns the root in hexadecimal.
func (r Root) String() string { return hex.EncodeToString(r[:]) }

// Chunk is one entry of a manifest.
type Chunk struct {
	// Offset and Length place the chunk in the NAR, in bytes.
	Offset int64
	Length int
	// Sum is the sha-256 of the chunk's bytes.
	Sum Sum
	// Masked says that MaskedSum and Runs are set. It is false where the chunk
	// holds no run, more than MaxRuns, or where the manifest would grow too long.
	Masked bool
	// MaskedSum is the sha-256 of the masked bytes.
	MaskedSum Sum
	// Runs names the hash part of each run, in order, by its index in the
	// manifest's HashParts.
	Runs []uint32
}

// Manifest lists the chunks of a NAR.
type Manifest struct {
	NARHash nix.NARHash
	// NARSize is in bytes and the sum of the chunks' lengths.
	NARSize int64
	// HashParts are the distinct hash parts of all masked chunks' runs, in order
	// of first appearance.
	HashParts []nix.HashPart
	Chunks    []Chunk
}

// Root returns the sha-256 of the manifest's encoding.
func (m *Manifest) Root() Root { return sha256.Sum256(m.Encode()) }

// implicit returns the manifest of a NAR of at most ImplicitSize bytes.
func implicit(hash nix.NARHash, size int64) *Manifest {
	return &Manifest{
		NARHash: hash,
		NARSize: size,
		Chunks:  []Chunk{{Length: int(size), Sum: Sum(hash)}},
	}
}
