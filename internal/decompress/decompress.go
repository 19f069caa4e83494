// Package decompress undoes the compressions of binary caches, in memory that
// is bounded whatever the input asks for.
package decompress

import (
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// None is Nix's word for an uncompressed NAR.
const None = "none"

const (
	// maxWindow is the largest zstd window, in bytes: what "zstd --ultra -22"
	// needs.
	maxWindow = 128 << 20
	// maxDictionary is the largest xz dictionary, in bytes: what "xz -9" needs.
	maxDictionary = 64 << 20
)

// Knows reports whether NewReader knows the method as a Compression.
func Knows(method string) bool {
	switch method {
	case None, "xz", "zstd", "bzip2", "br", "gzip":
		return true
	}
	return false
}

// IsPlain reports whether a method leaves bytes as they are.
func IsPlain(method string) bool { return method == "" || method == None || method == "identity" }

// NewReader returns the plain bytes of r, some of whose decoders read byte by
// byte. The method is a Compression of a narinfo or a Content-Encoding. Close
// does not close r.
func NewReader(method string, r io.Reader) (io.ReadCloser, error) {
	if IsPlain(method) {
		return io.NopCloser(r), nil
	}
	switch method {
	case "xz":
		// One header asks for the dictionary, up to 4 GiB, whatever the file holds.
		x, err := xz.NewReader(r, maxDictionary)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case "zstd":
		// Concurrency 1 decodes in Read, without goroutines.
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case "bzip2":
		return io.NopCloser(bzip2.NewReader(r)), nil
	case "br":
		return io.NopCloser(brotli.NewReader(r)), nil // windows are 16 MiB at most
	case "gzip":
		return gzip.NewReader(r)
	}
	return nil, fmt.Errorf("encoding %.40q is not known", method)
}
