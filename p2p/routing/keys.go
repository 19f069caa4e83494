// Package routing finds out who holds what, through a Kademlia DHT, and tells
// the DHT what this node holds.
//
// # Networks
//
// The public network is the public IPFS DHT (Amino) and its bootstrap peers,
// once for the internet and once for the local network. Every other network is
// a DHT of its own, whose protocol carries the network's name.
//
// # Keys
//
// A NAR is found under the CID of its bytes, as in any IPFS tool. A narinfo is
// found under a CID made from the store path's hash part. The records say only
// who provides: content and metadata travel over package exchange.
package routing

import (
	"crypto/sha256"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// metadataPrefix keeps the keys of narinfos apart from those of content.
const metadataPrefix = "nix-narinfo:"

// ContentKey is the key of a NAR: CIDv1 with the raw codec and the NAR hash as
// its sha2-256 multihash.
func ContentKey(h nix.NARHash) cid.Cid { return rawCID(h) }

// MetadataKey is the key of a narinfo: CIDv1 with the raw codec and, as its
// sha2-256 multihash, the hash of "nix-narinfo:" and the hash part's 32
// base-32 characters.
func MetadataKey(p nix.HashPart) cid.Cid {
	return rawCID(sha256.Sum256([]byte(metadataPrefix + p.String())))
}

// Digest returns the sha-256 in a key of either kind, which does not tell which
// kind it is of. It is false for all other CIDs.
func Digest(key cid.Cid) (digest [sha256.Size]byte, ok bool) {
	hash, err := mh.Decode(key.Hash())
	if err != nil || key.Version() != 1 || key.Type() != cid.Raw || hash.Code != mh.SHA2_256 || len(hash.Digest) != sha256.Size {
		return digest, false
	}
	return [sha256.Size]byte(hash.Digest), true
}

func rawCID(digest [sha256.Size]byte) cid.Cid {
	sum, err := mh.Encode(digest[:], mh.SHA2_256)
	if err != nil {
		panic("routing: sha2-256 multihash: " + err.Error())
	}
	return cid.NewCidV1(cid.Raw, sum)
}
