package decompress

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ulikunitz/xz/lzma"
)

// lzma2 encodes by another implementation.
func lzma2(tb testing.TB, plain []byte, cfg lzma.Writer2Config) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := cfg.NewWriter2(&out)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// samples are bytes of several kinds: of each a decoder has paths of its own.
func samples() map[string][]byte {
	random := make([]byte, 300_000)
	_, _ = rand.NewChaCha8(sha256.Sum256(nil)).Read(random)
	var text, mixed []byte
	for i := range 20_000 {
		text = fmt.Appendf(text, "line %d of %d: %x\n", i, i*i, i%7)
	}
	for block := range slices.Chunk(random, 1000) {
		mixed = append(append(append(mixed, block...), block[:300]...), text[len(mixed)%1000:][:500]...)
	}
	return map[string][]byte{
		"one byte": {7}, "random": random, "text": text, "mixed": mixed, "zeros": make([]byte, 3<<20),
	}
}

func TestLZMA2(t *testing.T) {
	for name, plain := range samples() {
		for _, cfg := range []lzma.Writer2Config{
			{DictCap: 64 << 10},
			{DictCap: 1 << 20},
			{DictCap: 64 << 10, Properties: &lzma.Properties{LC: 0, LP: 4, PB: 4}},
			{DictCap: 64 << 10, Properties: &lzma.Properties{LC: 4, LP: 0, PB: 0}},
		} {
			encoded := lzma2(t, plain, cfg)
			for _, piece := range []int{1000, 128 << 10} {
				r := newLZMA2Reader(bytes.NewReader(encoded), cfg.DictCap)
				var got bytes.Buffer
				_, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{r}, make([]byte, piece))
				if err != nil || !bytes.Equal(got.Bytes(), plain) {
					t.Errorf("%s, %+v: %d bytes, %v, want %d", name, cfg, got.Len(), err, len(plain))
				}
			}
			for _, cut := range []int{0, 1, 3, len(encoded) / 2, len(encoded) - 1} {
				_, err := io.Copy(io.Discard, newLZMA2Reader(bytes.NewReader(encoded[:cut]), cfg.DictCap))
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%s cut at %d of %d: %v", name, cut, len(encoded), err)
				}
			}
		}
	}
}

// Whatever the input is, decoding ends, and where another implementation decodes
// it too both come to the same.
func FuzzLZMA2(f *testing.F) {
	const dict, most = 16 << 10, 256 << 10
	for _, plain := range samples() {
		f.Add(lzma2(f, plain[:min(len(plain), 5000)], lzma.Writer2Config{DictCap: dict}))
	}
	f.Add([]byte{1, 0, 2, 'a', 'b', 'c', 2, 0, 0, 'd', 0})
	f.Fuzz(func(t *testing.T, encoded []byte) {
		got, err := io.ReadAll(io.LimitReader(newLZMA2Reader(bytes.NewReader(encoded), dict), most))
		oracle, oracleErr := lzma.Reader2Config{DictCap: dict}.NewReader2(bytes.NewReader(encoded))
		if err != nil || oracleErr != nil {
			return
		}
		want, oracleErr := io.ReadAll(io.LimitReader(oracle, most))
		if oracleErr == nil && !bytes.Equal(got, want) {
			t.Errorf("%d bytes, the other has %d", len(got), len(want))
		}
	})
}

// BenchmarkXZ decodes about what a NAR of programs is like.
func BenchmarkXZ(b *testing.B) {
	plain := samples()["mixed"]
	encoded := lzma2(b, plain, lzma.Writer2Config{DictCap: 8 << 20})
	for _, tt := range []struct {
		name string
		open func() (io.Reader, error)
	}{
		{"here", func() (io.Reader, error) { return newLZMA2Reader(bytes.NewReader(encoded), 8<<20), nil }},
		{"ulikunitz", func() (io.Reader, error) {
			return lzma.Reader2Config{DictCap: 8 << 20}.NewReader2(bytes.NewReader(encoded))
		}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				r, err := tt.open()
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
