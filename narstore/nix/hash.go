package nix

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// NARHash is the sha-256 of a NAR's uncompressed bytes: what a narinfo's
// signature vouches for.
type NARHash [sha256.Size]byte

// ParseNARHash parses every writing of a sha-256 that Nix knows:
// "sha256:<base-32>", "sha256:<hexadecimal>", "sha256:<base-64>" and the SRI
// form "sha256-<base-64>".
func ParseNARHash(s string) (NARHash, error) {
	text, sri := strings.CutPrefix(s, "sha256-")
	if !sri {
		var ok bool
		if text, ok = strings.CutPrefix(s, "sha256:"); !ok {
			return NARHash{}, fmt.Errorf("nix: hash %.100q is not a sha256", s)
		}
	}
	var h NARHash
	var err error
	if sri {
		err = decodeExactly(h[:], text, decodeBase64)
	} else {
		err = decodeHash(h[:], text)
	}
	if err != nil {
		return NARHash{}, fmt.Errorf("nix: hash %.100q: %w", s, err)
	}
	return h, nil
}

// decodeHash fills dst from a hash in base-32, hexadecimal or base-64; its
// length tells which.
func decodeHash(dst []byte, s string) error {
	switch len(s) {
	case base64.StdEncoding.EncodedLen(len(dst)):
		return decodeExactly(dst, s, decodeBase64)
	case hex.EncodedLen(len(dst)):
		return decodeExactly(dst, s, hex.DecodeString)
	default:
		return decodeBase32(dst, s)
	}
}

// decodeBase64 refuses the line ends that Go's decoder skips.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("a line end in base-64")
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

func decodeExactly(dst []byte, s string, decode func(string) ([]byte, error)) error {
	b, err := decode(s)
	if err != nil {
		return err
	}
	if len(b) != len(dst) {
		return fmt.Errorf("%d bytes, want %d", len(b), len(dst))
	}
	copy(dst, b)
	return nil
}

// ParseNARHashBase32 parses the 52 bare base-32 characters that stand in NAR
// URLs.
func ParseNARHashBase32(s string) (NARHash, error) {
	var h NARHash
	if err := decodeBase32(h[:], s); err != nil {
		return NARHash{}, fmt.Errorf("nix: hash %.100q: %w", s, err)
	}
	return h, nil
}

// Base32 returns the 52 bare base-32 characters.
func (h NARHash) Base32() string { return EncodeBase32(h[:]) }

// String returns "sha256:<base-32>", as fingerprints and narinfos have it.
func (h NARHash) String() string { return "sha256:" + h.Base32() }
