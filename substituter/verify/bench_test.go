package verify_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/address"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

// What the second check costs beside the first.
func BenchmarkGate(b *testing.B) {
	archive := file(string(bytes.Repeat([]byte("0123456789abcdef"), 4<<20)))
	target := verify.Target{Hash: sha256.Sum256(archive), Size: int64(len(archive))}
	path, err := nix.ParseBaseName(selfPart + "-x")
	if err != nil {
		b.Fatal(err)
	}
	for _, tt := range []struct {
		name, ca string
		self     bool
	}{
		{"NAR hash alone", "", false},
		{"and a file by sha256", "fixed:" + target.Hash.String(), false},
		{"and a file by blake3", "fixed:blake3:" + target.Hash.Base32(), false},
		{"and a NAR that refers to itself", "fixed:r:" + target.Hash.String(), true},
	} {
		b.Run(tt.name, func(b *testing.B) {
			b.SetBytes(target.Size)
			for b.Loop() {
				g := verify.NewGate(io.Discard, verify.NewDigest(target), verify.Range{From: 0, To: target.Size}, 64<<10)
				if tt.ca != "" {
					info := &narinfo.Info{StorePath: path, CA: tt.ca}
					if tt.self {
						info.References = []nix.StorePath{path}
					}
					check, err := address.NewCheck(info)
					if err != nil {
						b.Fatal(err)
					}
					g.Check(check)
				}
				for rest := archive; len(rest) > 0; rest = rest[min(len(rest), 128<<10):] {
					if _, err := g.Write(rest[:min(len(rest), 128<<10)]); err != nil {
						b.Fatal(err)
					}
				}
				_ = g.Finish() // the addresses are not those of the content
			}
		})
	}
}
