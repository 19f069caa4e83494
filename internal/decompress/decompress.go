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
)

// None is Nix's word for an uncompressed NAR.
const None = "none"

// maxWindow is the largest zstd window and xz dictionary, in bytes: what
// "zstd --ultra -22" needs, and twice what "xz -9" needs.
const maxWindow = 128 << 20

// Knows reports whether NewReader knows the method as a Compression.
func Knows(method string) bool {
	switch method {
	case None, "xz", "zstd", "bzip2", "br", "gzip":
		return true
	}
	return false
}

// NewReader returns the plain bytes of r, some of whose decoders read byte by
// byte. The method is a Compression of a narinfo or a Content-Encoding; size is
// how many plain bytes are wanted at most. Close does not close r.
func NewReader(method string, r io.Reader, size int64) (io.ReadCloser, error) {
	switch method {
	case "", None, "identity":
		return io.NopCloser(r), nil
	case "xz":
		return io.NopCloser(newXZReader(r, size)), nil
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
