// Package verify holds back what is not yet proven.
//
// The only thing that is signed about a NAR's bytes is one sha-256 over all of
// them. A Digest is that hash while it is computed, a Cache keeps its states,
// so that a resumed request need not begin again, and a Gate lets bytes through
// to a client, but for a last part that waits until the whole has matched.
package verify

import (
	"crypto/sha256"
	"encoding"
	"fmt"
	"hash"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Target is what bytes are checked against.
type Target struct {
	Hash nix.NARHash
	// Size is in bytes.
	Size int64
}

// Digest is the running sha-256 of a NAR from its first byte on.
type Digest struct {
	target Target
	sum    hash.Hash
	offset int64
	// peers is true if peers supplied any of the bytes.
	peers bool
}

// NewDigest returns the digest of no bytes yet.
func NewDigest(target Target) *Digest { return &Digest{target: target, sum: sha256.New()} }

// Target returns what the digest is checked against.
func (d *Digest) Target() Target { return d.target }

// Offset is the number of bytes so far.
func (d *Digest) Offset() int64 { return d.offset }

// FromPeers reports whether peers supplied any of the bytes.
func (d *Digest) FromPeers() bool { return d.peers }

// MarkPeers notes that peers supply what follows.
func (d *Digest) MarkPeers() { d.peers = true }

// Write adds the bytes that come next. It never fails.
func (d *Digest) Write(p []byte) (int, error) {
	d.offset += int64(len(p))
	return d.sum.Write(p)
}

// Matches reports whether the bytes so far are the whole target.
func (d *Digest) Matches() bool {
	return d.offset == d.target.Size && nix.NARHash(d.sum.Sum(nil)) == d.target.Hash
}

// Clone returns a copy that goes on by itself.
func (d *Digest) Clone() *Digest {
	c := *d
	c.sum = restore(d.state())
	return &c
}

func (d *Digest) state() []byte {
	m, ok := d.sum.(encoding.BinaryMarshaler)
	if !ok {
		panic("verify: sha-256 has no state to save")
	}
	state, err := m.MarshalBinary()
	if err != nil {
		panic(fmt.Sprintf("verify: save sha-256: %v", err))
	}
	return state
}

func restore(state []byte) hash.Hash {
	sum := sha256.New()
	m, ok := sum.(encoding.BinaryUnmarshaler)
	if !ok {
		panic("verify: sha-256 has no state to restore")
	}
	if err := m.UnmarshalBinary(state); err != nil {
		panic(fmt.Sprintf("verify: restore sha-256: %v", err))
	}
	return sum
}
