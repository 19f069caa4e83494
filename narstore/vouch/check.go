package vouch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/address"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// maxNAR is the largest NAR that is read to prove a content address, in bytes.
// What has such an address without having been built is a text of a Nix
// expression, or a file that was added by hand.
const maxNAR = 64 << 20

// Check returns nil if own signatures of a path are kept, or else the reason
// why not. They are of what this machine has built itself, and of sources whose
// content address proves that their bytes are the right ones. Everything else
// came from somewhere, whose signature it has or has not; and derivations are
// never shared.
func (s *Store) Check(ctx context.Context, info *narstore.PathInfo) error {
	switch {
	case info.Path.IsDerivation():
		return errors.New("a derivation is never signed")
	case info.Ultimate:
		return nil
	case info.CA == "":
		return errors.New("not built on this machine")
	}
	proven, err := s.proves(ctx, info)
	switch {
	case err != nil:
		return fmt.Errorf("its content address could not be checked: %w", err)
	case !proven:
		return errors.New("not built on this machine, and its content address does not prove what is in it")
	}
	return nil
}

// proves reports whether the store path follows from the NAR hash, or from the
// contents of the NAR.
func (s *Store) proves(ctx context.Context, info *narstore.PathInfo) (bool, error) {
	ca, err := nix.ParseContentAddress(info.CA)
	if err != nil || !ca.Yields(info.Path, info.References) || slices.Contains(info.References, info.Path) {
		return false, nil //nolint:nilerr // a malformed address proves nothing
	}
	if hash, ok := ca.NARHash(); ok {
		return hash == info.NARHash, nil
	}
	// Whoever can make two contents with one hash could have the other signed.
	if weak := ca.Algorithm() == nix.MD5 || ca.Algorithm() == nix.SHA1; weak || info.NARSize > maxNAR {
		return false, nil
	}
	check, err := address.NewCheck(&narinfo.Info{StorePath: info.Path, CA: info.CA})
	if err != nil {
		return false, nil //nolint:nilerr // one that cannot be checked proves nothing
	}
	archive, err := s.store.Open(ctx, info)
	if err != nil {
		return false, err
	}
	if archive.Size() != info.NARSize {
		err := fmt.Errorf("the NAR of %s has %d bytes, and is registered with %d", info.Path, archive.Size(), info.NARSize)
		return false, errors.Join(err, archive.Close())
	}
	whole := sha256.New()
	_, err = io.Copy(io.MultiWriter(check, whole), io.NewSectionReader(archive, 0, archive.Size()))
	if err := errors.Join(err, archive.Close()); err != nil {
		return false, err
	}
	return check.Matches() && nix.NARHash(whole.Sum(nil)) == info.NARHash, nil
}
