package nar_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/nar"
)

// nix runs one of Nix's programs with everything that it could write below a
// temporary directory, and returns what it prints.
func nix(tb testing.TB, home string, args ...string) ([]byte, error) {
	tb.Helper()
	program, err := exec.LookPath(args[0])
	if err != nil {
		tb.Fatalf("%v: this test compares with the real Nix; install it with `make deps`", err)
	}
	cmd := exec.CommandContext(tb.Context(), program, args[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+home, "NIX_REMOTE=local", "NIX_CONF_DIR="+home,
		"NIX_STORE_DIR="+filepath.Join(home, "store"), "NIX_STATE_DIR="+filepath.Join(home, "state"),
		"NIX_LOG_DIR="+filepath.Join(home, "log"), "NIX_CONFIG=build-users-group =\nsandbox = false\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// nixDump returns the NAR of the tree at root in Nix's own opinion.
func nixDump(tb testing.TB, root string) []byte {
	tb.Helper()
	out, err := nix(tb, tb.TempDir(), "nix-store", "--dump", root)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// dump returns the NAR of the tree at root in ours.
func dump(tb testing.TB, root string) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := nar.Dump(&b, root); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func open(tb testing.TB, root string) *nar.Archive {
	tb.Helper()
	a, err := nar.Open(tb.Context(), root)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { a.Close() })
	return a
}

func write(tb testing.TB, path, contents string, mode os.FileMode) {
	tb.Helper()
	mkdir(tb, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		tb.Fatal(err)
	}
}

func mkdir(tb testing.TB, path string) {
	tb.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		tb.Fatal(err)
	}
}

func symlink(tb testing.TB, target, path string) {
	tb.Helper()
	mkdir(tb, filepath.Dir(path))
	if err := os.Symlink(target, path); err != nil {
		tb.Fatal(err)
	}
}

// oddTree makes a tree with every kind of node and name that a NAR can hold.
func oddTree(tb testing.TB) string {
	tb.Helper()
	root := filepath.Join(tb.TempDir(), "odd")
	at := func(name string) string { return filepath.Join(root, name) }
	for size := range 18 {
		write(tb, at(fmt.Sprintf("sizes/%d", size)), strings.Repeat("x", size), 0o444)
	}
	for _, mode := range []os.FileMode{0o400, 0o444, 0o500, 0o555, 0o644, 0o654, 0o645, 0o611, 0o755, 0o4755} {
		write(tb, at(fmt.Sprintf("modes/%o", mode)), "#!/bin/sh\n", mode)
	}
	names := []string{
		"a", "a-", "a.b", "a/b", "A", "a b", " ", "a\nb", "\\", "~", "-", "...", ".a", ")", "(", "entry", "é", "e\u0301", "日本語",
		"\xff\xfe", "\x01", "\x7f", "invalid\xc3", strings.Repeat("n", 255), "empty/file",
	}
	for _, name := range names {
		// In directories of their own, since "a" is a file as well as a directory.
		write(tb, at("names/"+strings.ReplaceAll(name, "a/b", "a!/b")), name, 0o444)
	}
	mkdir(tb, at("z/empty/empty"))
	mkdir(tb, at("z/empty-"))
	write(tb, at("z/large"), strings.Repeat("0123456789abcdef", 100_000), 0o444)
	symlink(tb, "../a", at("links/dangling"))
	symlink(tb, "/nix/store/00000000000000000000000000000000-x", at("links/absolute"))
	symlink(tb, strings.Repeat("long/", 819), at("links/long"))
	symlink(tb, ".", at("links/loop"))
	symlink(tb, "\xff", at("links/invalid"))
	write(tb, filepath.Join(append([]string{root}, strings.Split(strings.Repeat("d/", 300)+"f", "/")...)...), "deep", 0o444)
	return root
}

// manyFiles makes a tree of n small files in n/100 directories.
func manyFiles(tb testing.TB, n int) string {
	tb.Helper()
	root := filepath.Join(tb.TempDir(), "many")
	for i := range n {
		dir := filepath.Join(root, fmt.Sprintf("lib/python3.12/site-packages/package%d", i/100))
		if i%100 == 0 {
			mkdir(tb, dir)
		}
		contents := strings.Repeat(fmt.Sprintln("line", i), i%400)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("module_%d.py", i)), []byte(contents), 0o444); err != nil {
			tb.Fatal(err)
		}
	}
	return root
}

func readAll(tb testing.TB, a *nar.Archive) []byte {
	tb.Helper()
	b, err := io.ReadAll(io.NewSectionReader(a, 0, a.Size()))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
