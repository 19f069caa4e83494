package nar_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	gonix "github.com/nix-community/go-nix/pkg/nar"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
)

// FuzzReader checks that go-nix reads what we accept, and the same tree in it;
// and that the tree, once unpacked, has the very archive that it came from. The
// reverse of the first does not hold: go-nix accepts names such as ".." and
// archives that are cut off.
//
// With lines, every line of the input is one string of the archive: so mutations
// change its structure and not only lengths and padding.
func FuzzReader(f *testing.F) {
	seeds, err := fs.Glob(cachetest.FS, "nar/*.nar")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range seeds {
		b, err := cachetest.FS.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) < 10_000 {
			f.Add(b, false)
		}
	}
	for _, text := range []string{
		archive(directory("a", directory("b", file("12345678"), "c", directory()), "a-", link("../x"), "b", file(""))),
		archive(words("(", "type", "regular", "executable", "", "contents", "#!", ")")),
		archive(link("x")),
	} {
		f.Add([]byte(text), false)
		f.Add([]byte(lines(text)), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, lines bool) {
		if lines {
			b = []byte(words(strings.Split(string(b), "\n")...))
		}
		nodes, err := readNodes(bytes.NewReader(b))
		if err != nil {
			return
		}
		// go-nix takes an entry that is named ")" for the end of its directory.
		if !slices.ContainsFunc(nodes, func(n node) bool { return slices.Contains(strings.Split(n.Path, "/"), ")") }) {
			want, err := goNixNodes(b)
			if err != nil {
				t.Fatalf("go-nix refuses what we accept: %v", err)
			}
			if diff := cmp.Diff(want, nodes); diff != "" {
				t.Fatalf("nodes (-go-nix +ours):\n%s", diff)
			}
		}
		if got := dump(t, unpack(t, bytes.NewReader(b))); !bytes.Equal(got, b) {
			t.Fatalf("the unpacked tree's archive differs at byte %d of %d", firstDifference(got, b), len(b))
		}
	})
}

// lines returns the strings that an archive consists of, one to a line.
func lines(text string) string {
	var lines []string
	for len(text) > 0 {
		n := int(binary.LittleEndian.Uint64([]byte(text)))
		lines = append(lines, text[8:8+n])
		text = text[8+n+-n&7:]
	}
	return strings.Join(lines, "\n")
}

func goNixNodes(b []byte) ([]node, error) {
	r, err := gonix.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	types := map[gonix.NodeType]nar.Type{
		gonix.TypeRegular: nar.Regular, gonix.TypeSymlink: nar.Symlink, gonix.TypeDirectory: nar.Directory,
	}
	var nodes []node
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nodes, r.Close()
		}
		if err != nil {
			return nil, err
		}
		contents, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node{Contents: string(contents), Header: nar.Header{
			Path: strings.TrimPrefix(h.Path, "/"), Type: types[h.Type],
			Executable: h.Executable, Size: h.Size, Target: h.LinkTarget,
		}})
	}
}
