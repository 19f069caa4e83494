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
	if c.Masked {
		if changed, err = c.rewrite(b, parts); err != nil {
			return false, err
		}
	}
	if sha256.Sum256(b) != c.Sum {
		return false, ErrDifferent
	}
	return changed, nil
}

// rewrite puts the hash parts of c into the runs of b.
func (c *Chunk) rewrite(b []byte, parts []nix.HashPart) (changed bool, err error) {
	from := 0
	for _, index := range c.Runs {
		at, ok := nextRun(b, from)
		if !ok || int(index) >= len(parts) {
			return false, ErrDifferent
		}
		text := b[at+1 : at+1+textLength]
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
