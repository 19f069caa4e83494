package decompress_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/nar-p2p/nar-p2p/internal/decompress"
)

// FuzzReader has every method read what a cache may send. Nothing but an error
// may come of it, and no more memory than the bounds allow: the fuzzer's workers
// have little more.
func FuzzReader(f *testing.F) {
	text := bytes.Repeat([]byte("nix-archive-1 "), 100)
	pack := func(method byte, open func(io.Writer) (io.WriteCloser, error)) {
		var packed bytes.Buffer
		w, err := open(&packed)
		if err == nil {
			_, err = w.Write(text)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			f.Fatal(err)
		}
		f.Add(method, packed.Bytes())
	}
	methods := []string{"xz", "zstd", "bzip2", "br", "gzip"}
	pack(0, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
	pack(1, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
	// "hello\n"
	f.Add(byte(2), []byte("BZh91AY&SY\xd8r\x01/\x00\x00\x01W\x80\x00\x10@\x00\x00@\x00\x80\x06\x04\x90\x00 \x00\"\x06\x86\xd4 \xc9\x88\xc7i\x0e\x82\x81\x1f\x8b\xb9\"\x9c(Hl9\x00\x97\x80"))
	pack(3, func(w io.Writer) (io.WriteCloser, error) { return brotli.NewWriter(w), nil })
	pack(4, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
	f.Fuzz(func(t *testing.T, method byte, data []byte) {
		r, err := decompress.NewReader(methods[int(method)%len(methods)], bytes.NewReader(data))
		if err != nil {
			return
		}
		defer r.Close()
		// Whoever reads stops at the size that was promised.
		const promised = 1 << 20
		n, err := io.Copy(io.Discard, io.LimitReader(r, promised))
		if n > promised {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}
