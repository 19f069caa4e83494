package nar_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/nar"
)

func BenchmarkOpen20000Files(b *testing.B) {
	root := manyFiles(b, 20_000)
	b.ReportAllocs()
	for b.Loop() {
		a, err := nar.Open(b.Context(), root)
		if err != nil {
			b.Fatal(err)
		}
		a.Close()
	}
}

func BenchmarkReadAt(b *testing.B) {
	large := filepath.Join(b.TempDir(), "large")
	if err := os.WriteFile(large, bytes.Repeat([]byte("0123456789abcdef"), 16<<20), 0o444); err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct{ name, root string }{
		{"20000 files", manyFiles(b, 20_000)},
		{"one file of 256 MiB", large},
	} {
		b.Run(bench.name, func(b *testing.B) {
			a := open(b, bench.root)
			p := make([]byte, 256<<10)
			b.SetBytes(a.Size())
			b.ReportAllocs()
			for b.Loop() {
				for off := int64(0); off < a.Size(); off += int64(len(p)) {
					if _, err := a.ReadAt(p[:min(int64(len(p)), a.Size()-off)], off); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	many := dump(b, manyFiles(b, 20_000))
	for _, bench := range []struct {
		name string
		text []byte
	}{
		{"20000 files", many},
		{"one file of 64 MiB", []byte(archive(file(strings.Repeat("0123456789abcdef", 4<<20))))},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.text)))
			b.ReportAllocs()
			p := make([]byte, 64<<10)
			for b.Loop() {
				r := nar.NewReader(bytes.NewReader(bench.text))
				for {
					if _, err := r.Next(); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						b.Fatal(err)
					}
					for {
						if _, err := r.Read(p); err != nil {
							break
						}
					}
				}
			}
		})
	}
}
