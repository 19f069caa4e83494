package vouch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// maxFile is the largest NAR that is read to prove a content address, in bytes.
// What has such an address without having been built is a text of a Nix
// expression, or a file that was added by hand.
const maxFile = 64 << 20

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
// contents of the one file that the NAR holds.
func (s *Store) proves(ctx context.Context, info *narstore.PathInfo) (bool, error) {
	address, err := nix.ParseContentAddress(info.CA)
	if err != nil || !address.Yields(info.Path, info.References) || slices.Contains(info.References, info.Path) {
		return false, nil //nolint:nilerr // a malformed address proves nothing
	}
	if hash, ok := address.NARHash(); ok {
		return hash == info.NARHash, nil
	}
	if info.NARSize > maxFile {
		return false, nil
	}
	archive, err := s.store.Open(ctx, info)
	if err != nil {
		return false, err
	}
	whole := sha256.New()
	file, err := hashFile(io.TeeReader(io.NewSectionReader(archive, 0, archive.Size()), whole))
	if err := errors.Join(err, archive.Close()); err != nil {
		return false, err
	}
	if file == nil || nix.NARHash(whole.Sum(nil)) != info.NARHash {
		return false, nil
	}
	for _, method := range []string{"text:sha256:", "fixed:sha256:"} {
		if got, err := nix.ParseContentAddress(method + nix.EncodeBase32(file)); err == nil && got == address {
			return true, nil
		}
	}
	return false, nil
}

// hashFile returns the sha-256 of the file that a NAR consists of, or nil where
// it is of anything else.
func hashFile(r io.Reader) ([]byte, error) {
	archive := nar.NewReader(r)
	root, err := archive.Next()
	if err != nil || root.Type != nar.Regular || root.Executable {
		return nil, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, archive); err != nil {
		return nil, err
	}
	if _, err := archive.Next(); !errors.Is(err, io.EOF) {
		return nil, err
	}
	return sum.Sum(nil), nil
}
