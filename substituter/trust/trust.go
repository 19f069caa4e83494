// Package trust decides which narinfos are believed.
//
// A record is believed because enough trusted keys have signed it, or because
// it needs no signature: its store path is named after its own NAR hash. Who
// sent it does not matter. What the signatures do not cover is the word of the
// sender, and Clean takes out what Nix would stumble over.
package trust

import (
	"errors"
	"fmt"
	"slices"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// ErrUntrusted is the error of Check.
var ErrUntrusted = errors.New("trust: record is not trusted")

// Keys says whose signatures count.
type Keys struct {
	Trusted []narinfo.PublicKey
	// Threshold is how many different keys must have signed a record; less
	// than 1 means 1. The same key under two names is one key.
	Threshold int
}

// Check returns nil if the record's store path, NAR hash, NAR size and
// references can be relied upon, or else an error that is ErrUntrusted. (Where
// the store path proves the NAR hash it does not prove the size; but then no
// NAR of a wrong size has that hash.) It says nothing about the other fields.
func (k *Keys) Check(info *narinfo.Info) error {
	signers, need := k.signers(info)
	if signers >= need || namesItself(info) {
		return nil
	}
	return fmt.Errorf("%w: %s: valid signatures of %d trusted keys, want %d", ErrUntrusted, info.StorePath, signers, need)
}

// Signed reports whether the signatures alone are enough, so that the NAR size
// is proven too.
func (k *Keys) Signed(info *narinfo.Info) bool {
	signers, need := k.signers(info)
	return signers >= need
}

// signers returns how many trusted keys have signed a record, and must have.
func (k *Keys) signers(info *narinfo.Info) (have, need int) {
	return len(info.SignedBy(k.Trusted)), max(k.Threshold, 1)
}

// namesItself reports whether the store path follows from the NAR hash and the
// references, so that the record proves itself. Of all content addresses only
// the hash of the whole NAR does that: the others, and those of paths that
// refer to themselves, prove something, but not this NAR hash.
func namesItself(info *narinfo.Info) bool {
	address, err := nix.ParseContentAddress(info.CA)
	if err != nil || slices.Contains(info.References, info.StorePath) {
		return false
	}
	hash, ok := address.NARHash()
	return ok && hash == info.NARHash && address.Yields(info.StorePath, info.References)
}

// addressHolds reports whether the record's content address is right, given
// that the rest of the record is.
func addressHolds(info *narinfo.Info) bool {
	address, err := nix.ParseContentAddress(info.CA)
	if err != nil || !address.Yields(info.StorePath, info.References) {
		return false
	}
	if hash, ok := address.NARHash(); ok && !slices.Contains(info.References, info.StorePath) {
		return hash == info.NARHash
	}
	return true
}

// maxForeign bounds the signatures of unknown keys in a record, which anybody
// can add.
const maxForeign = 16

// Clean returns a copy of a record that Check accepted, without what is wrong
// in its unsigned part: signatures in the name of a trusted key that do not
// verify, and a content address that does not yield the store path, for which
// Nix would reject the path. Signatures of other keys stay, up to 16 of them,
// since Nix may trust keys that this node does not know.
func (k *Keys) Clean(info *narinfo.Info) *narinfo.Info {
	clean := *info
	clean.References = slices.Clone(info.References)
	clean.Signatures = info.ValidSignatures(k.Trusted)
	foreign := 0
	for _, s := range info.Signatures {
		known := slices.ContainsFunc(k.Trusted, func(t narinfo.PublicKey) bool { return t.Name == s.KeyName })
		if !known && foreign < maxForeign && !slices.Contains(clean.Signatures, s) {
			clean.Signatures = append(clean.Signatures, s)
			foreign++
		}
	}
	if !addressHolds(info) {
		clean.CA = ""
	}
	return &clean
}

// Merge adds up what several sources say of one path. Records that agree in
// all that is signed become one, with the signatures of all of them and the
// first content address that holds; the rest of it is the first one's. Records
// that disagree stay apart, in the order of their first appearance, so that no
// source can spoil another's record.
func Merge(infos ...*narinfo.Info) []*narinfo.Info {
	var merged []*narinfo.Info
	at := make(map[string]int, len(infos))
	for _, info := range infos {
		fingerprint := info.Fingerprint()
		i, known := at[fingerprint]
		if !known {
			at[fingerprint] = len(merged)
			first := *info
			first.Signatures = slices.Clone(info.Signatures)
			merged = append(merged, &first)
			continue
		}
		sum := merged[i]
		for _, s := range info.Signatures {
			if !slices.Contains(sum.Signatures, s) {
				sum.Signatures = append(sum.Signatures, s)
			}
		}
		if !addressHolds(sum) {
			sum.CA = info.CA
		}
	}
	return merged
}
