package chunk

import (
	"crypto/sha256"
	"errors"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// ErrDifferent says that bytes are not those of a chunk, and cannot be made them.
var ErrDifferent = errors.New("chunk: bytes are not those of the chunk")

// Restore turns bytes with the masked sum of the chunk into the chunk's: it
// overwrites the hash part of every run with that which the manifest names,
// parts being the manifest's HashParts. It reports whether any was another one.
//
// Whatever the bytes were, they are the chunk's where there is no error: their
// sum is checked. Else the error is ErrDifferent and they may be anything.
func (c *Chunk) Restore(b []byte, parts []nix.HashPart) (changed bool, err error) {
	if len(b) != c.Length {
		return false, ErrDifferent
	}
	return c.restore(b, parts, nil)
}

// Rename says what the name of a store path, which is old where the bytes come
// from and fresh where they go, is in either place. Both names are of one length;
// or "" where nothing is known.
type Rename func(old, fresh nix.HashPart) (from, to string)

// RestoreNamed is Restore of bytes in which store paths have other names, too.
func (c *Chunk) RestoreNamed(b []byte, parts []nix.HashPart, rename Rename) error {
	if len(b) != c.Length {
		return ErrDifferent
	}
	_, err := c.restore(b, parts, rename)
	return err
}

func (c *Chunk) restore(b []byte, parts []nix.HashPart, rename Rename) (changed bool, err error) {
	if c.Masked {
		if changed, err = c.rewrite(b, parts, rename); err != nil {
			return false, err
		}
	}
	if sha256.Sum256(b) != c.Sum {
		return false, ErrDifferent
	}
	return changed, nil
}

// rewrite puts the hash parts of c into the runs of b, and other names behind
// them.
func (c *Chunk) rewrite(b []byte, parts []nix.HashPart, rename Rename) (changed bool, err error) {
	from := 0
	for _, index := range c.Runs {
		at, ok := nextRun(b, from)
		if !ok || int(index) >= len(parts) {
			return false, ErrDifferent
		}
		text := b[at+1 : at+1+textLength]
		if rename != nil {
			replaceName(b[at+runLength:], rename, hashPart([textLength]byte(text)), parts[index])
		}
		if want := parts[index].String(); string(text) != want {
			copy(text, want)
			changed = true
		}
		from = at + runLength
	}
	if _, more := nextRun(b, from); more {
		return false, ErrDifferent
	}
	return changed, nil
}

// replaceName gives the path whose name b begins with, as far as b goes, the name
// that it has by now.
func replaceName(b []byte, rename Rename, old, fresh nix.HashPart) {
	from, to := rename(old, fresh)
	n := min(len(from), len(b))
	if len(from) == len(to) && string(b[:n]) == from[:n] {
		copy(b, to[:n])
	}
}
