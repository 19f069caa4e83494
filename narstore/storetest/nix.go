package storetest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// nixConf makes Nix work without a daemon, build users or a network.
const nixConf = "build-users-group =\nsandbox = false\nsubstitute = false\nexperimental-features = nix-command\n"

// Nix is a real Nix store in a temporary directory, and the commands to work
// on it. Nothing outside the directory is touched.
type Nix struct {
	// Root is what Nix calls the root of a local store. Everybody may read it.
	Root string
	env  []string
}

// NewNix returns an empty store. The test fails where Nix is not installed.
func NewNix(tb testing.TB) *Nix {
	tb.Helper()
	dir := PublicDir(tb)
	n := &Nix{Root: filepath.Join(dir, "root")}
	tb.Cleanup(func() { makeRemovable(n.Root) })
	conf := filepath.Join(dir, "etc")
	write(tb, filepath.Join(conf, "nix.conf"), nixConf, 0o644)
	n.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "NIX_CONF_DIR=" + conf, "TMPDIR=" + dir}
	n.Run(tb, "nix-store", "--init")
	return n
}

// PublicDir returns a temporary directory that other users can read, unlike
// those of t.TempDir.
func PublicDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// URL is the store's address for Nix's --store.
func (n *Nix) URL() string { return "local?root=" + n.Root }

// Run runs a Nix command on the store and returns what it prints.
func (n *Nix) Run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	return n.RunOn(tb, n.URL(), name, args...)
}

// RunOn runs a Nix command on another store.
func (n *Nix) RunOn(tb testing.TB, store, name string, args ...string) string {
	tb.Helper()
	var stdout, stderr bytes.Buffer
	cmd := n.Command(tb, name, append(args, "--store", store)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.String()
}

// Command prepares a Nix command, which a store is still to be named to.
func (n *Nix) Command(tb testing.TB, name string, args ...string) *exec.Cmd {
	tb.Helper()
	if _, err := exec.LookPath(name); err != nil {
		tb.Fatalf("%v: this test needs Nix; `make deps` installs it", err)
	}
	cmd := exec.CommandContext(tb.Context(), name, args...)
	cmd.Env = n.env
	return cmd
}

// Add makes a store path of a file or directory.
func (n *Nix) Add(tb testing.TB, path string) nix.StorePath {
	tb.Helper()
	return parsePath(tb, n.Run(tb, "nix-store", "--add", path))
}

// AddTree makes a store path of a directory with one of everything that a NAR
// can hold. Different seeds make different paths.
func (n *Nix) AddTree(tb testing.TB, name, seed string) nix.StorePath {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), name)
	write(tb, filepath.Join(dir, "bin", "tool"), "#!/bin/sh\necho "+seed+"\n", 0o755)
	write(tb, filepath.Join(dir, "share", "large"), strings.Repeat(seed+"\n", 10_000), 0o644)
	write(tb, filepath.Join(dir, "share", "empty"), "", 0o644)
	if err := os.Symlink("../share/large", filepath.Join(dir, "bin", "link")); err != nil {
		tb.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "void"), 0o755); err != nil {
		tb.Fatal(err)
	}
	return n.Add(tb, dir)
}

// AddPair makes two store paths, of which the second refers to the first.
func (n *Nix) AddPair(tb testing.TB) (referenced, referrer nix.StorePath) {
	tb.Helper()
	const expr = `let a = builtins.toFile "referenced" "text"; in a + " " + builtins.toFile "referrer" a`
	out := n.Run(tb, "nix-instantiate", "--eval", "--read-write-mode", "--expr", expr)
	first, second, _ := strings.Cut(strings.Trim(out, "\"\n"), " ")
	return parsePath(tb, first), parsePath(tb, second)
}

// Delete removes paths.
func (n *Nix) Delete(tb testing.TB, paths ...nix.StorePath) {
	tb.Helper()
	n.Run(tb, "nix-store", append([]string{"--delete"}, names(paths)...)...)
}

// Dump returns the NAR of a path as Nix makes it.
func (n *Nix) Dump(tb testing.TB, path nix.StorePath) []byte {
	tb.Helper()
	return []byte(n.Run(tb, "nix-store", "--dump", n.RealPath(path)))
}

// RealPath is where a path lies on the disk.
func (n *Nix) RealPath(path nix.StorePath) string { return filepath.Join(n.Root, path.String()) }

// makeRemovable undoes Nix's write protection, which stops all but root.
func makeRemovable(root string) {
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	})
}

func parsePath(tb testing.TB, text string) nix.StorePath {
	tb.Helper()
	path, err := nix.ParseStorePath(strings.TrimSpace(text))
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func names(paths []nix.StorePath) []string {
	list := make([]string, len(paths))
	for i, p := range paths {
		list[i] = p.String()
	}
	return list
}

func write(tb testing.TB, path, content string, mode os.FileMode) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		tb.Fatal(err)
	}
}
