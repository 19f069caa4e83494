package dircache

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxWindow is the largest zstd window that is accepted, in bytes: what
// `zstd --ultra --long` asks for at most without being forced.
const maxWindow = 128 << 20

// decompressed is the content of a compressed file.
type decompressed struct {
	io.Reader

	file io.Closer
	end  func() // frees what the decompression holds, or nil
}

func (d *decompressed) Close() error {
	if d.end != nil {
		d.end()
	}
	return d.file.Close()
}

// decompress returns the content of a file, compressed as a narinfo's
// Compression says. The file is closed with it, or in case of an error.
func decompress(file io.ReadCloser, compression string) (io.ReadCloser, error) {
	d := &decompressed{file: file}
	var err error
	switch compression {
	case "xz":
		d.Reader, err = xz.NewReader(bufio.NewReader(file))
	case "zstd":
		var z *zstd.Decoder
		z, err = zstd.NewReader(file, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			d.Reader, d.end = z, z.Close
		}
	case "bzip2":
		d.Reader = bzip2.NewReader(file)
	case "br":
		d.Reader = brotli.NewReader(file)
	default:
		err = fmt.Errorf("compression %.40q is not supported", compression)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return d, nil
}
