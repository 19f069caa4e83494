package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// verifier passes a NAR through and fails, with an error that is errCorrupt,
// where its size or hash are not those of its record. It gives io.EOF only
// after all was right, so that whoever reads on until then has the NAR.
type verifier struct {
	from io.Reader
	hash hash.Hash
	want *narinfo.Info
	read int64
}

func newVerifier(from io.Reader, want *narinfo.Info) *verifier {
	return &verifier{from: from, hash: sha256.New(), want: want}
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.from.Read(p)
	v.hash.Write(p[:n])
	v.read += int64(n)
	switch {
	case v.read > v.want.NARSize:
		return 0, fmt.Errorf("%w: more than the signed %d bytes arrived", errCorrupt, v.want.NARSize)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("the transfer was cut off after %d of %d bytes", v.read, v.want.NARSize)
	case errors.Is(err, io.EOF):
		return n, v.verdict()
	default:
		return n, err
	}
}

func (v *verifier) verdict() error {
	if v.read < v.want.NARSize {
		return fmt.Errorf("%w: only %d of the signed %d bytes arrived", errCorrupt, v.read, v.want.NARSize)
	}
	if got := nix.NARHash(v.hash.Sum(nil)); got != v.want.NARHash {
		return fmt.Errorf("%w: the NAR's hash is %s, and %s was signed", errCorrupt, got, v.want.NARHash)
	}
	return io.EOF
}
