package nix_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/storepath"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const hello = "26xbg1ndr7hbcncrlf9nhx5is2b25d13-hello-2.12.1"

func TestParseStorePath(t *testing.T) {
	const part = "26xbg1ndr7hbcncrlf9nhx5is2b25d13"
	for _, tc := range []struct {
		name, path string
		ok         bool
	}{
		{"ordinary", "/nix/store/" + hello, true},
		{"all characters", "/nix/store/" + part + "-aZ09+-._?=", true},
		{"longest name", "/nix/store/" + part + "-" + strings.Repeat("n", 211), true},
		{"hidden file", "/nix/store/" + part + "-.hidden", true},
		{"three dots", "/nix/store/" + part + "-...", true},
		{"derivation", "/nix/store/" + part + "-hello.drv", true},
		{"name too long", "/nix/store/" + part + "-" + strings.Repeat("n", 212), false},
		{"dot", "/nix/store/" + part + "-.", false},
		{"dot and output", "/nix/store/" + part + "-.-out", false},
		{"dot dot", "/nix/store/" + part + "-..", false},
		{"dot dot and output", "/nix/store/" + part + "-..-out", false},
		{"no name", "/nix/store/" + part + "-", false},
		{"no dash", "/nix/store/" + part, false},
		{"short hash part", "/nix/store/" + part[1:] + "-hello", false},
		{"long hash part", "/nix/store/0" + part + "-hello", false},
		{"not base-32", "/nix/store/e" + part[1:] + "-hello", false},
		{"upper case", "/nix/store/" + strings.ToUpper(part) + "-hello", false},
		{"other store", "/gnu/store/" + hello, false},
		{"base name", hello, false},
		{"file in it", "/nix/store/" + hello + "/bin/hello", false},
		{"final slash", "/nix/store/" + hello + "/", false},
		{"double slash", "/nix/store//" + hello, false},
		{"way out", "/nix/store/../" + hello, false},
		{"blank", "/nix/store/" + part + "-hello world", false},
		{"line end", "/nix/store/" + hello + "\n", false},
		{"NUL", "/nix/store/" + hello + "\x00", false},
		{"umlaut", "/nix/store/" + part + "-\u00fc", false},
		{"empty", "", false},
		{"store", "/nix/store", false},
		{"store and slash", "/nix/store/", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := nix.ParseStorePath(tc.path)
			if (err == nil) != tc.ok {
				t.Fatalf("ParseStorePath(%q) = %v, %v; want ok = %t", tc.path, p, err, tc.ok)
			}
			if err != nil {
				if !p.IsZero() {
					t.Errorf("ParseStorePath(%q) = %q beside an error", tc.path, p)
				}
				return
			}
			if p.String() != tc.path {
				t.Errorf("String() = %q, want %q", p, tc.path)
			}
			if got, want := p.IsDerivation(), strings.HasSuffix(tc.path, ".drv"); got != want {
				t.Errorf("IsDerivation() = %t, want %t", got, want)
			}
		})
	}
}

func TestStorePathParts(t *testing.T) {
	p, err := nix.ParseBaseName(hello)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.HashPart().String(), "26xbg1ndr7hbcncrlf9nhx5is2b25d13"; got != want {
		t.Errorf("HashPart() = %q, want %q", got, want)
	}
	if got, want := p.Name(), "hello-2.12.1"; got != want {
		t.Errorf("Name() = %q, want %q", got, want)
	}
	if got := p.BaseName(); got != hello {
		t.Errorf("BaseName() = %q, want %q", got, hello)
	}
	if q, err := nix.NewStorePath(p.HashPart(), p.Name()); err != nil || q != p {
		t.Errorf("NewStorePath(%q, %q) = %q, %v", p.HashPart(), p.Name(), q, err)
	}
	if _, err := nix.NewStorePath(p.HashPart(), "a/b"); err == nil {
		t.Error("NewStorePath accepts a slash in the name")
	}
}

func TestZeroStorePath(t *testing.T) {
	var zero nix.StorePath
	if zero.String() != "" || zero.BaseName() != "" || !zero.IsZero() {
		t.Errorf("zero path: String() = %q, BaseName() = %q, IsZero() = %t", zero, zero.BaseName(), zero.IsZero())
	}
}

// The order decides what is signed, so it must be that of the text.
func TestCompareIsTextOrder(t *testing.T) {
	texts := []string{
		"00000000000000000000000000000000-b",
		"00000000000000000000000000000000-a",
		"00000000000000000000000000000000-a-b",
		"10000000000000000000000000000000-a",
		"00000000000000000000000000000001-a",
		"0000000000000000z000000000000000-a",
		"9zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-a",
		"a0000000000000000000000000000000-A",
		"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-a",
		hello,
	}
	paths := make([]nix.StorePath, len(texts))
	for i, text := range texts {
		var err error
		if paths[i], err = nix.ParseBaseName(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range paths {
		for _, q := range paths {
			if got, want := p.Compare(q), strings.Compare(p.BaseName(), q.BaseName()); got != want {
				t.Errorf("%s.Compare(%s) = %d, want %d", p.BaseName(), q.BaseName(), got, want)
			}
		}
	}
}

func FuzzParseStorePath(f *testing.F) {
	for _, s := range []string{"", "/nix/store/", hello, "/nix/store/" + hello, "/nix/store/" + hello + "/bin", "/nix/store/" + hello[:33] + ".."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := nix.ParseStorePath(s)
		theirs, theirErr := storepath.FromAbsolutePath(s)
		if err != nil {
			// go-nix takes paths outside the store, and names that are too
			// long or relative.
			if theirErr == nil && theirs.Absolute() == s && len(theirs.Name) <= 211 && theirs.Name[0] != '.' {
				t.Fatalf("ParseStorePath(%q): %v; go-nix accepts it", s, err)
			}
			return
		}
		if p.String() != s {
			t.Fatalf("ParseStorePath(%q).String() = %q", s, p)
		}
		if theirErr != nil {
			t.Fatalf("ParseStorePath(%q) is accepted; go-nix: %v", s, theirErr)
		}
		part := p.HashPart()
		if theirs.Name != p.Name() || !slices.Equal(theirs.Digest, part[:]) {
			t.Fatalf("ParseStorePath(%q) = %s, %s; go-nix: %x, %s", s, part, p.Name(), theirs.Digest, theirs.Name)
		}
	})
}
