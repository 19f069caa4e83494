package upstream

import (
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

const (
	// compressionNone is Nix's word for an uncompressed NAR.
	compressionNone = "none"
	// maxWindow is the largest zstd window and xz dictionary, in bytes: what
	// "zstd --ultra -22" needs, and twice what "xz -9" needs.
	maxWindow = 128 << 20
	// maxOverhead is what headers may add to a small file, in bytes.
	maxOverhead = 64 << 10
)

// knownCompression reports whether decode knows the method.
func knownCompression(method string) bool {
	switch method {
	case compressionNone, "xz", "zstd", "bzip2", "br", "gzip":
		return true
	}
	return false
}

// decode returns the plain bytes of r. The method is a Compression of a
// narinfo or a Content-Encoding; size is how many plain bytes are wanted at
// most, so that no decoder takes more memory than they need.
func decode(method string, r io.Reader, size int64) (io.ReadCloser, error) {
	switch method {
	case "", compressionNone, "identity":
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
