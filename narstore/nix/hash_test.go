package nix_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/nix-community/go-nix/pkg/nixhash"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

func TestParseNARHash(t *testing.T) {
	const (
		hexText    = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
		base64Text = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	)
	empty := nix.NARHash(sha256.Sum256(nil))
	for _, tc := range []struct {
		name, in string
		want     nix.NARHash // zero: refused
	}{
		{"hexadecimal", "sha256:" + hexText, empty},
		{"base-64", "sha256:" + base64Text, empty},
		{"SRI", "sha256-" + base64Text, empty},
		{"upper-case hexadecimal", "sha256:" + strings.ToUpper(hexText), empty},
		{"base-32", "sha256:" + empty.Base32(), empty},
		{"no algorithm", empty.Base32(), nix.NARHash{}},
		{"other algorithm", "sha512:" + empty.Base32(), nix.NARHash{}},
		{"SRI in hexadecimal", "sha256-" + hexText, nix.NARHash{}},
		{"short", "sha256:" + empty.Base32()[1:], nix.NARHash{}},
		{"long", "sha256:0" + empty.Base32(), nix.NARHash{}},
		{"surplus bits", "sha256:z" + empty.Base32()[1:], nix.NARHash{}},
		{"not base-32", "sha256:" + empty.Base32()[:51] + "e", nix.NARHash{}},
		{"not hexadecimal", "sha256:" + hexText[:63] + "g", nix.NARHash{}},
		{"base-64 with surplus bits", "sha256:" + base64Text[:42] + "V=", nix.NARHash{}},
		{"base-64 with a line end", "sha256:" + base64Text[:42] + "\n=", nix.NARHash{}},
		{"empty", "", nix.NARHash{}},
		{"nothing after the colon", "sha256:", nix.NARHash{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := nix.ParseNARHash(tc.in)
			if (err == nil) != (tc.want != nix.NARHash{}) || err == nil && got != tc.want {
				t.Errorf("ParseNARHash(%q) = %v, %v; want %v", tc.in, got, err, tc.want)
			}
		})
	}
}

func FuzzParseNARHash(f *testing.F) {
	sum := sha256.Sum256(nil)
	f.Add("sha256:" + hex.EncodeToString(sum[:]))
	f.Add("sha256:" + base64.StdEncoding.EncodeToString(sum[:]))
	f.Add("sha256-" + base64.StdEncoding.EncodeToString(sum[:]))
	f.Add(nix.NARHash(sum).String())
	f.Add("sha256:")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := nix.ParseNARHash(s)
		algorithm := nixhash.SHA256
		theirs, theirErr := nixhash.ParseAny(s, &algorithm)
		if err != nil {
			// go-nix ignores surplus bits and line ends in base-64, and takes a
			// bare hash.
			if theirErr == nil && strings.HasPrefix(s, "sha256:") && len(s) != len("sha256:")+44 {
				t.Fatalf("ParseNARHash(%q): %v; go-nix accepts it", s, err)
			}
			return
		}
		if theirErr != nil || !bytes.Equal(theirs.Digest(), h[:]) {
			t.Fatalf("ParseNARHash(%q) = %s; go-nix: %v, %v", s, h, theirs, theirErr)
		}
		if again, err := nix.ParseNARHash(h.String()); err != nil || again != h {
			t.Fatalf("ParseNARHash(%q) = %s, %v; want %s", h.String(), again, err, h)
		}
		if again, err := nix.ParseNARHashBase32(h.Base32()); err != nil || again != h {
			t.Fatalf("ParseNARHashBase32(%q) = %s, %v; want %s", h.Base32(), again, err, h)
		}
	})
}

func FuzzBase32(f *testing.F) {
	f.Add([]byte{}, "")
	f.Add([]byte{0xff}, "8z")
	f.Add(make([]byte, 20), "z0000000000000000000000000000000")
	f.Add(bytes.Repeat([]byte{0xff}, 32), "z"+strings.Repeat("0", 51))
	f.Fuzz(func(t *testing.T, b []byte, s string) {
		if got, want := nix.EncodeBase32(b), nixbase32.EncodeToString(b); got != want {
			t.Fatalf("EncodeBase32(%x) = %q, want %q", b, got, want)
		}
		for i := range len(s) {
			if got, want := nix.IsBase32(s[i]), strings.IndexByte(nixbase32.Alphabet, s[i]) >= 0; got != want {
				t.Fatalf("IsBase32(%q) = %t, want %t", s[i], got, want)
			}
		}
		want, theirErr := nixbase32.DecodeString(s)
		part, partErr := nix.ParseHashPart(s)
		if ok := theirErr == nil && len(s) == 32; ok != (partErr == nil) || ok && !bytes.Equal(part[:], want) {
			t.Fatalf("ParseHashPart(%q) = %x, %v; want %x, %v", s, part, partErr, want, theirErr)
		}
		hash, hashErr := nix.ParseNARHashBase32(s)
		if ok := theirErr == nil && len(s) == 52; ok != (hashErr == nil) || ok && !bytes.Equal(hash[:], want) {
			t.Fatalf("ParseNARHashBase32(%q) = %x, %v; want %x, %v", s, hash, hashErr, want, theirErr)
		}
		if partErr == nil && part.String() != s || hashErr == nil && hash.Base32() != s {
			t.Fatalf("%q is not the one writing of %x %x", s, part, hash)
		}
	})
}
