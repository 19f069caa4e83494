package control

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// maxTarget is longer than any store path, hash or CID of a hash.
const maxTarget = 300

// Target is what find looks for: a store path, whose NAR hash is to be found
// out first, or a hash.
type Target struct {
	// Part is the hash part of a store path.
	Part nix.HashPart
	// Path is set too where the target was a whole store path.
	Path nix.StorePath
	// IsHash says that Hash is set, and Part is not.
	IsHash bool
	Hash   nix.NARHash
}

// ParseTarget parses a store path, the hash part of one, a NAR hash
// ("sha256:...", "sha256-..." or 52 base-32 characters) or the CID of one.
func ParseTarget(s string) (Target, error) {
	if len(s) > maxTarget {
		return Target{}, fmt.Errorf("target is longer than %d bytes", maxTarget)
	}
	if path, err := nix.ParseStorePath(s); err == nil {
		return Target{Path: path, Part: path.HashPart()}, nil
	}
	if part, err := nix.ParseHashPart(s); err == nil {
		return Target{Part: part}, nil
	}
	for _, parse := range []func(string) (nix.NARHash, error){nix.ParseNARHash, nix.ParseNARHashBase32, parseCID} {
		if hash, err := parse(s); err == nil {
			return Target{Hash: hash, IsHash: true}, nil
		}
	}
	return Target{}, fmt.Errorf("%.80q is no store path, hash part, NAR hash or CID of a sha-256", s)
}

// parseCID returns the sha-256 in a CID. The codec does not matter: the DHT
// looks at the hash alone.
func parseCID(s string) (nix.NARHash, error) {
	c, err := cid.Decode(s)
	if err != nil {
		return nix.NARHash{}, err
	}
	decoded, err := multihash.Decode(c.Hash())
	if err != nil {
		return nix.NARHash{}, err
	}
	var hash nix.NARHash
	if decoded.Code != multihash.SHA2_256 || len(decoded.Digest) != len(hash) {
		return nix.NARHash{}, errors.New("not of a sha-256")
	}
	copy(hash[:], decoded.Digest)
	return hash, nil
}
