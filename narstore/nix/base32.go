package nix

import (
	"errors"
	"fmt"
)

// base32Alphabet leaves out e, o, u and t (libutil/hash.cc).
const base32Alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

// base32Value maps a character to its value, or to 0xff.
var base32Value = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(base32Alphabet) {
		t[base32Alphabet[i]] = byte(i)
	}
	return t
}()

// IsBase32 reports whether c is a character of Nix's base-32 alphabet.
func IsBase32(c byte) bool { return base32Value[c] != 0xff }

// base32Len is the number of characters for n bytes.
func base32Len(n int) int { return (n*8 + 4) / 5 }

// EncodeBase32 writes b in Nix's base-32: the least significant bits last.
func EncodeBase32(b []byte) string {
	n := base32Len(len(b))
	out := make([]byte, n)
	for i := range n {
		bit := (n - 1 - i) * 5
		at, shift := bit/8, bit%8
		c := b[at] >> shift
		if at+1 < len(b) {
			c |= b[at+1] << (8 - shift)
		}
		out[i] = base32Alphabet[c&0x1f]
	}
	return string(out)
}

// decodeBase32 fills dst from s. Only the one canonical writing of a value is
// accepted: surplus high bits must be zero.
func decodeBase32(dst []byte, s string) error {
	n := base32Len(len(dst))
	if len(s) != n {
		return fmt.Errorf("%d characters, want %d", len(s), n)
	}
	clear(dst)
	for i := range n {
		v := base32Value[s[i]]
		if v == 0xff {
			return fmt.Errorf("character %q at %d is not base-32", s[i], i)
		}
		bit := (n - 1 - i) * 5
		at, shift := bit/8, bit%8
		dst[at] |= v << shift
		rest := v >> (8 - shift)
		if at+1 < len(dst) {
			dst[at+1] |= rest
		} else if rest != 0 {
			return errors.New("value does not fit")
		}
	}
	return nil
}
