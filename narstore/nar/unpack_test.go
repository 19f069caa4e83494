package nar_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

func TestGenuineArchives(t *testing.T) {
	files, err := fs.Glob(cachetest.FS, "nar/*.nar")
	if err != nil || len(files) != 30 {
		t.Fatalf("%d genuine archives, %v, want 30", len(files), err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			want, err := cachetest.FS.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			text, err := cachetest.FS.ReadFile(strings.ReplaceAll(name, "nar", "narinfo"))
			if err != nil {
				t.Fatal(err)
			}
			info, err := narinfo.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			dest := unpack(t, bytes.NewReader(want))
			got := dump(t, dest)
			if !bytes.Equal(got, want) {
				t.Errorf("the unpacked tree's archive differs at byte %d", firstDifference(got, want))
			}
			if sha256.Sum256(got) != info.NARHash {
				t.Error("the unpacked tree's archive has not the signed hash")
			}
		})
	}
}

// unpack unpacks r into a new directory, from which tests can delete it again.
func unpack(tb testing.TB, r io.Reader) string {
	tb.Helper()
	dest := filepath.Join(tb.TempDir(), "unpacked")
	if err := nar.Unpack(tb.Context(), r, dest); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if root, err := os.OpenRoot(dest); err == nil {
			makeWritable(tb, root)
		}
	})
	return dest
}

// makeWritable lets whoever is not root delete the tree. Its paths may be too
// long for the system.
func makeWritable(tb testing.TB, root *os.Root) {
	tb.Helper()
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		tb.Fatal(err)
	}
	defer dir.Close()
	if err := dir.Chmod(0o700); err != nil {
		tb.Fatal(err)
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			sub, err := root.OpenRoot(e.Name())
			if err != nil {
				tb.Fatal(err)
			}
			makeWritable(tb, sub)
		}
	}
}

func TestUnpackOddTree(t *testing.T) {
	root := oddTree(t)
	want := dump(t, root)
	dest := unpack(t, bytes.NewReader(want))
	got := dump(t, dest)
	if !bytes.Equal(got, want) {
		t.Errorf("the unpacked tree's archive differs at byte %d", firstDifference(got, want))
	}
}

func TestUnpackModes(t *testing.T) {
	dest := unpack(t, strings.NewReader(archive(directory(
		"dir", directory("sub", directory()),
		"executable", words("(", "type", "regular", "executable", "", "contents", "#!", ")"),
		"file", file("contents"),
		"link", link("/etc"),
	))))
	got := map[string]string{}
	err := filepath.WalkDir(dest, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		got[strings.TrimPrefix(path, dest)] = info.Mode().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"":            "dr-xr-xr-x",
		"/dir":        "dr-xr-xr-x",
		"/dir/sub":    "dr-xr-xr-x",
		"/executable": "-r-xr-xr-x",
		"/file":       "-r--r--r--",
		"/link":       "Lrwxrwxrwx",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
}

func TestUnpackLeavesNothingBehind(t *testing.T) {
	tests := []struct{ name, text string }{
		{"cut in a directory", archive(directory("a", directory("b", file("1")), "c", file("2")))[:500]},
		{"cut in contents", archive(directory("a", file(strings.Repeat("x", 1<<20))))[:1<<19]},
		{"cut in a file", archive(file(strings.Repeat("x", 1<<20)))[:1<<19]},
		{"bytes behind a directory", archive(directory("a", directory("b", file("1")))) + "x"},
		{"bytes behind a file", archive(file("1")) + "x"},
		{"bytes behind a symlink", archive(link("1")) + "x"},
		{"a name that climbs", archive(directory("..", file("")))},
		{"a name with a slash", archive(directory("a", directory(), "a/b", file("")))},
		{"through a symlink", archive(directory("a", link("/tmp"), "a/b", file("")))},
		{"a symlink, then a directory", archive(directory("a", link("/tmp"), "a", directory("b", file(""))))},
		{"nothing", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := nar.Unpack(t.Context(), strings.NewReader(test.text), filepath.Join(dir, "dest")); err == nil {
				t.Error("Unpack = nil, want an error")
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

func TestUnpackTouchesNothingThatExists(t *testing.T) {
	for name, text := range map[string]string{
		"directory": archive(directory("a", file(""))),
		"file":      archive(file("new")),
		"symlink":   archive(link("new")),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "target")
			mkdir(t, filepath.Join(dir, "directory"))
			write(t, filepath.Join(dir, "file"), "old", 0o644)
			symlink(t, target, filepath.Join(dir, "link"))
			before := dump(t, dir)
			for _, dest := range []string{"directory", "file", "link"} {
				err := nar.Unpack(t.Context(), strings.NewReader(text), filepath.Join(dir, dest))
				if !errors.Is(err, fs.ErrExist) {
					t.Errorf("Unpack to a %s = %v, want ErrExist", dest, err)
				}
			}
			if !bytes.Equal(dump(t, dir), before) {
				t.Error("Unpack changed what was there")
			}
		})
	}
}

func TestUnpackStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dest := filepath.Join(t.TempDir(), "dest")
	// An endless file: only the context ends it.
	head := archive(words("(", "type", "regular", "contents")) + "\xff\xff\xff\xff\xff\xff\xff\x7f"
	err := nar.Unpack(ctx, io.MultiReader(strings.NewReader(head), &endless{after: 1 << 20, call: cancel}), dest)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Unpack = %v, want Canceled", err)
	}
	if _, err := os.Lstat(dest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// endless yields zeros for ever, and calls call once after some of them.
type endless struct {
	after int
	call  func()
}

func (e *endless) Read(p []byte) (int, error) {
	if e.after -= len(p); e.after < 0 {
		e.call()
	}
	return len(p), nil
}

func TestUnpackDeepestTree(t *testing.T) {
	deep := file("deep")
	for range 2_047 {
		deep = directory("d", deep)
	}
	want := archive(deep)
	if got := dump(t, unpack(t, strings.NewReader(want))); string(got) != want {
		t.Errorf("the unpacked tree's archive differs at byte %d", firstDifference(got, []byte(want)))
	}
}
