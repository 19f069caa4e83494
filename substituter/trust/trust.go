// Package trust decides which narinfos are believed.
//
// A record is believed because enough trusted keys have signed it, or because
// it needs no signature: its store path is named after its own NAR hash. Who
// sent it does not matter then. Other kinds of content addresses prove the
// content but not the record; those are believed of an upstream only, until the
// content has been checked (Addressed). What the signatures do not cover is the
// word of the sender, and Clean takes out what Nix would stumble over.
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
	address, ok := parseAddress(info)
	if !ok || slices.Contains(info.References, info.StorePath) {
		return false
	}
	_, ok = address.NARHash()
	return ok
}

// Addressed reports whether the content address of a record yields its store
// path and can be checked against the content (address.Check). The record of
// an upstream, which its owner has chosen, may then do without signatures: but
// nobody must have the whole of its NAR before that check. A peer's may not,
// since it could keep the path from us with the hash of any other NAR.
//
// Git trees are not checked: Nix has them as an experiment, and by default does
// not even read a record with such an address.
func Addressed(info *narinfo.Info) bool {
	address, ok := parseAddress(info)
	return ok && address.Method() != nix.Git
}

// parseAddress returns the record's content address if it is right, given that
// the rest of the record is.
func parseAddress(info *narinfo.Info) (address nix.ContentAddress, ok bool) {
	address, err := nix.ParseContentAddress(info.CA)
	if err != nil || !address.Yields(info.StorePath, info.References) {
		return nix.ContentAddress{}, false
	}
	if hash, ok := address.NARHash(); ok && !slices.Contains(info.References, info.StorePath) {
		return address, hash == info.NARHash
	}
	return address, true
}

// legible reports whether every Nix since 2.8 reads a record with this address.
// Git trees and BLAKE3 are experimental features: without them the address is
// an error, and the record is lost, however well it is signed.
func legible(address nix.ContentAddress) bool {
	return address.Method() != nix.Git && address.Algorithm() != nix.BLAKE3
}

// maxForeign bounds the signatures of unknown keys in a record, which anybody
// can add.
const maxForeign = 16

// Clean returns a copy of a record that is believed, without what is wrong in
// its unsigned part: signatures in the name of a trusted key that do not
// verify; and a content address that does not yield the store path, for which
// Nix would end itself. Signatures of other keys stay, up to 16 of them, since
// Nix may trust keys that this node does not know. The content address is
// written as Nix writes it; where signatures make it needless, one that only
// some Nix can read is left out.
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
	switch address, ok := parseAddress(info); {
	case !ok, !legible(address) && k.Signed(info):
		clean.CA = ""
	default:
		clean.CA = address.String()
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
		if _, ok := parseAddress(sum); !ok {
			sum.CA = info.CA
		}
	}
	return merged
}
