package nar_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/narstore/nar"
)

// words writes strings as they stand in NARs.
func words(words ...string) string {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(w)))
		b = append(b, w...)
		b = append(b, make([]byte, -len(w)&7)...)
	}
	return string(b)
}

// archive is a NAR with the given root node.
func archive(root string) string { return words("nix-archive-1") + root }

func file(contents string) string {
	return words("(", "type", "regular", "contents", contents, ")")
}

func link(target string) string { return words("(", "type", "symlink", "target", target, ")") }

// directory takes names and nodes by turns.
func directory(entries ...string) string {
	b := words("(", "type", "directory")
	for e := range slices.Chunk(entries, 2) {
		b += words("entry", "(", "name", e[0], "node") + e[1] + words(")")
	}
	return b + words(")")
}

// node is a Header with the file's contents.
type node struct {
	nar.Header
	Contents string
}

func readNodes(r io.Reader) ([]node, error) {
	var nodes []node
	reader := nar.NewReader(r)
	for {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nodes, nil
		}
		if err != nil {
			return nodes, err
		}
		contents, err := io.ReadAll(reader)
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, node{*h, string(contents)})
	}
}

func TestReader(t *testing.T) {
	text := archive(directory(
		"a", directory("b", file("12345678"), "c", directory()),
		"a-", link("../x"),
		"b", words("(", "type", "regular", "executable", "", "contents", "#!", ")"),
	))
	want := []node{
		{Header: nar.Header{Type: nar.Directory}},
		{Header: nar.Header{Path: "a", Type: nar.Directory}},
		{nar.Header{Path: "a/b", Type: nar.Regular, Size: 8}, "12345678"},
		{Header: nar.Header{Path: "a/c", Type: nar.Directory}},
		{Header: nar.Header{Path: "a-", Type: nar.Symlink, Target: "../x"}},
		{nar.Header{Path: "b", Type: nar.Regular, Executable: true, Size: 2}, "#!"},
	}
	for name, r := range map[string]io.Reader{
		"at once":               strings.NewReader(text),
		"byte by byte":          iotest.OneByteReader(strings.NewReader(text)),
		"EOF with the last one": iotest.DataErrReader(strings.NewReader(text)),
	} {
		got, err := readNodes(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestReaderSkipsContents(t *testing.T) {
	contents := strings.Repeat("x", 3<<20+1)
	r := nar.NewReader(strings.NewReader(archive(directory("a", file(contents), "b", file("2")))))
	var got []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Path)
		if _, err := r.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	if want := []string{"", "a", "b"}; !slices.Equal(got, want) {
		t.Errorf("paths %q, want %q", got, want)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("Next behind the end = %v, want EOF", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	entry := func(name string) string { return archive(directory(name, file(""))) }
	deep := file("")
	for range 2_049 {
		deep = directory("d", deep)
	}
	tests := []struct{ name, text, want string }{
		{"nothing", "", "offset 0, path \"\": unexpected EOF"},
		{"another magic", words("nix-archive-2"), `"nix-archive-2" instead of "nix-archive-1"`},
		{"a long magic", words("nix-archive-10"), "string of 14 bytes"},
		{"no node", archive(""), "unexpected EOF"},
		{"another type", archive(words("(", "type", "fifo", ")")), `type "fifo"`},
		{"no type", archive(words("(", ")")), `")" instead of "type"`},
		{"a second type", archive(words("(", "type", "regular", "type", "regular")), `"type" instead of`},
		{"a file without contents", archive(words("(", "type", "regular", ")")), `")" instead of`},
		{"executable after contents", archive(words("(", "type", "regular", "contents", "", "executable", "", ")")), `"executable" instead of ")"`},
		{"executable twice", archive(words("(", "type", "regular", "executable", "", "executable", "")), `"executable" instead of "contents"`},
		{"executable with a value", archive(words("(", "type", "regular", "executable", "1", "contents", "", ")")), `"1" instead of ""`},
		{"contents twice", archive(words("(", "type", "regular", "contents", "", "contents", "", ")")), `"contents" instead of ")"`},
		{"an executable symlink", archive(words("(", "type", "symlink", "executable", "")), `"executable" instead of "target"`},
		{"a symlink without target", archive(words("(", "type", "symlink", ")")), `")" instead of "target"`},
		{"a symlink to nothing", archive(link("")), "empty symlink target"},
		{"a symlink to NUL", archive(link("a\x00b")), "symlink target contains a NUL"},
		{"a symlink of 4,096 bytes", archive(link(strings.Repeat("x", 4096))), "string of 4096 bytes"},
		{"a file of 2^63 bytes", archive(words("(", "type", "regular", "contents") + "\x00\x00\x00\x00\x00\x00\x00\x80"), "file of 9223372036854775808 bytes"},
		{"a name of 2^64-1 bytes", archive(words("(", "type", "directory", "entry", "(", "name") + "\xff\xff\xff\xff\xff\xff\xff\xff"), "string of 18446744073709551615 bytes"},
		{"an empty name", entry(""), "empty name"},
		{"the name .", entry("."), `name "."`},
		{"the name ..", entry(".."), `name ".."`},
		{"a name with a slash", entry("a/b"), "contains a slash or NUL"},
		{"a name with NUL", entry("a\x00"), "contains a slash or NUL"},
		{"a name of 256 bytes", entry(strings.Repeat("x", 256)), "string of 256 bytes"},
		{"a name twice", archive(directory("a", file(""), "a", file(""))), `name "a" does not sort behind "a"`},
		{"names out of order", archive(directory("b", directory("z", file("")), "a", file(""))), `name "a" does not sort behind "b"`},
		{"names out of order below", archive(directory("b", directory("b", file(""), "a", file("")))), `path "b/b": name "a" does not sort behind "b"`},
		{"names in a locale's order", archive(directory("a", file(""), "B", file(""))), `name "B" does not sort behind "a"`},
		{"an entry without node", archive(words("(", "type", "directory", "entry", "(", "name", "a", ")", ")")), `")" instead of "node"`},
		{"an entry without name", archive(words("(", "type", "directory", "entry", "(", "node") + file("")), `"node" instead of "name"`},
		{"an unknown word in a directory", archive(words("(", "type", "directory", "name")), `"name" instead of "entry" or ")"`},
		{"an open entry", archive(words("(", "type", "directory", "entry", "(", "name", "a", "node") + file("") + words("entry")), `"entry" instead of ")"`},
		{"a path of 4,097 bytes", archive(deep), "path is longer than 4095 bytes"},
		{"a byte behind the end", archive(file("")) + "\x00", "more bytes behind the archive's end"},
		{"a second archive", archive(file("")) + archive(file("")), "more bytes behind the archive's end"},
		{"padding of a word", strings.Replace(archive(file("")), "type\x00", "type\x01", 1), "padding is not zero"},
		{"padding of contents", strings.Replace(archive(file("abc")), "abc\x00", "abc\x01", 1), "offset 99, path \"\": padding is not zero"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := readNodes(strings.NewReader(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("read: %v, want %s", err, test.want)
			}
		})
	}
}

func TestReaderAtTheLimits(t *testing.T) {
	deep := file("deep")
	for range 2_047 {
		deep = directory("d", deep)
	}
	for name, text := range map[string]string{
		"name":   archive(directory(strings.Repeat("x", 255), file(""))),
		"target": archive(link(strings.Repeat("x", 4095))),
		"path":   archive(deep),
	} {
		if _, err := readNodes(strings.NewReader(text)); err != nil {
			t.Errorf("longest %s: %v", name, err)
		}
	}
}

func TestReaderNoticesEveryCut(t *testing.T) {
	text := archive(directory("a", file("12345"), "b", link("target"), "c", directory("d", file(""))))
	for n := range text {
		if _, err := readNodes(strings.NewReader(text[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d of %d: %v, want ErrUnexpectedEOF", n, len(text), err)
		}
		skip := nar.NewReader(strings.NewReader(text[:n]))
		var err error
		for err == nil {
			_, err = skip.Next()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d of %d, contents skipped: %v, want ErrUnexpectedEOF", n, len(text), err)
		}
	}
}

// TestReaderNoticesEveryBit checks that an archive has no bit that could be
// another without the tree being another: a reader that overlooks one would
// take two different archives for the same tree.
func TestReaderNoticesEveryBit(t *testing.T) {
	text := []byte(archive(directory("a", words("(", "type", "regular", "executable", "", "contents", "12345", ")"), "b", link("target"))))
	want, err := readNodes(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(text) {
		text[bit/8] ^= 1 << (bit % 8)
		if got, err := readNodes(bytes.NewReader(text)); err == nil && cmp.Equal(got, want) {
			t.Errorf("bit %d of byte %d makes no difference", bit%8, bit/8)
		}
		text[bit/8] ^= 1 << (bit % 8)
	}
}

func TestReaderKeepsTheSourcesError(t *testing.T) {
	broken := errors.New("broken")
	text := archive(directory("a", file("12345")))
	for n := range len(text) + 1 {
		_, err := readNodes(io.MultiReader(strings.NewReader(text[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("source broken at %d: %v", n, err)
		}
	}
}
