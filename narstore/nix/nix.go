// Package nix holds Nix's own words as types: store paths, their hash parts,
// NAR hashes, and the base-32 in which Nix writes them.
//
// Every value of these types that was made by a Parse function is valid; the
// zero value of each means "none". Formats follow Nix's libstore (path.cc) and
// libutil (hash.cc).
package nix

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// StoreDir is the logical store directory. It is part of every signature, so a
// store in another place on the disk still speaks of this one.
const StoreDir = "/nix/store"

// maxNameLen is the longest name of a store path, in bytes (libstore/path.cc).
const maxNameLen = 211

// HashPart is the hash part of a store path: 20 bytes, written as 32 base-32
// characters. It names the path in URLs.
type HashPart [20]byte

// ParseHashPart parses the 32 base-32 characters of a hash part.
func ParseHashPart(s string) (HashPart, error) {
	var h HashPart
	if err := decodeBase32(h[:], s); err != nil {
		return HashPart{}, fmt.Errorf("nix: hash part %.40q: %w", s, err)
	}
	return h, nil
}

// String returns the 32 base-32 characters.
func (h HashPart) String() string { return EncodeBase32(h[:]) }

// StorePath is a path directly below StoreDir: a hash part and a name. It is
// comparable.
type StorePath struct {
	hash HashPart
	name string
}

// ParseStorePath parses an absolute path such as
// "/nix/store/<hash part>-<name>". Paths below a store path are refused.
func ParseStorePath(s string) (StorePath, error) {
	base, ok := strings.CutPrefix(s, StoreDir+"/")
	if !ok {
		return StorePath{}, fmt.Errorf("nix: store path %.300q is not in %s", s, StoreDir)
	}
	return ParseBaseName(base)
}

// ParseBaseName parses "<hash part>-<name>", as narinfos write references.
func ParseBaseName(s string) (StorePath, error) {
	part, name, ok := strings.Cut(s, "-")
	if !ok {
		return StorePath{}, fmt.Errorf("nix: store path %.300q has no name", s)
	}
	hash, err := ParseHashPart(part)
	if err != nil {
		return StorePath{}, err
	}
	return NewStorePath(hash, name)
}

// NewStorePath joins a hash part and a name, which it checks.
func NewStorePath(hash HashPart, name string) (StorePath, error) {
	if err := checkName(name); err != nil {
		return StorePath{}, fmt.Errorf("nix: store path name %.300q: %w", name, err)
	}
	return StorePath{hash: hash, name: name}, nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("empty")
	case len(name) > maxNameLen:
		return fmt.Errorf("longer than %d bytes", maxNameLen)
	}
	// A name may start with a dot, but must not read as "." or ".." up to its
	// first dash: Nix splits derivation outputs there.
	if first, _, _ := strings.Cut(name, "-"); first == "." || first == ".." {
		return errors.New("is a relative path")
	}
	for i := range len(name) {
		if !isNameByte(name[i]) {
			return fmt.Errorf("byte %q at %d is not allowed", name[i], i)
		}
	}
	return nil
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("+-._?=", c) >= 0
}

// HashPart returns the path's hash part.
func (p StorePath) HashPart() HashPart { return p.hash }

// Name returns what follows the hash part and its dash.
func (p StorePath) Name() string { return p.name }

// IsZero reports whether p is no path at all.
func (p StorePath) IsZero() bool { return p.name == "" }

// IsDerivation reports whether p is a build recipe rather than its result.
func (p StorePath) IsDerivation() bool { return strings.HasSuffix(p.name, ".drv") }

// BaseName returns "<hash part>-<name>", or "" for the zero path.
func (p StorePath) BaseName() string {
	if p.IsZero() {
		return ""
	}
	return p.hash.String() + "-" + p.name
}

// String returns the absolute path, or "" for the zero path.
func (p StorePath) String() string {
	if p.IsZero() {
		return ""
	}
	return StoreDir + "/" + p.BaseName()
}

// Compare orders paths as Nix orders references: by their text.
func (p StorePath) Compare(q StorePath) int {
	// Base-32 writes the last byte first, and its alphabet is in order.
	for i := len(p.hash) - 1; i >= 0; i-- {
		if c := cmp.Compare(p.hash[i], q.hash[i]); c != 0 {
			return c
		}
	}
	return strings.Compare(p.name, q.name)
}
