package closure_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

func newKey(t *testing.T) narinfo.SecretKey {
	t.Helper()
	key, err := narinfo.GenerateSecretKey("closure-test-1")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func generate(t *testing.T, dir string, cfg closure.Config) *closure.Closure {
	t.Helper()
	c, err := closure.Generate(t.Context(), dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRecords(t *testing.T) {
	dir, key := t.TempDir(), newKey(t)
	c := generate(t, dir, closure.Config{Paths: 40, Seed: 1, Key: key})
	seen := map[nix.StorePath]*narinfo.Info{}
	for _, info := range c.Records {
		text, err := os.ReadFile(filepath.Join(dir, info.StorePath.HashPart().String()+".narinfo"))
		if err != nil {
			t.Fatal(err)
		}
		written, err := narinfo.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(written.Bytes(), info.Bytes()) || len(written.SignedBy([]narinfo.PublicKey{key.Public()})) != 1 {
			t.Errorf("the record of %s is not the one returned, or not signed", info.StorePath)
		}
		archive, err := os.ReadFile(filepath.Join(dir, info.URL))
		if err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(archive) != info.NARHash || int64(len(archive)) != info.NARSize {
			t.Errorf("the NAR of %s is not what was signed", info.StorePath)
		}
		for _, ref := range info.References {
			if seen[ref] == nil && ref != info.StorePath {
				t.Errorf("%s refers to %s before it was made", info.StorePath, ref)
			}
			if !bytes.Contains(archive, []byte(ref.String()+"/")) {
				t.Errorf("%s does not mention its reference %s", info.StorePath, ref)
			}
		}
		checkArchive(t, archive)
		seen[info.StorePath] = info
	}
	reached := map[nix.StorePath]bool{}
	reach(c.Root().StorePath, seen, reached)
	if len(seen) != 40 || len(reached) != len(seen) {
		t.Errorf("the root reaches %d of %d different paths, want 40", len(reached), len(seen))
	}
}

func TestDepth(t *testing.T) {
	for _, test := range []struct{ paths, depth int }{{2, 2}, {3, 2}, {3, 3}, {40, 12}, {41, 12}, {12, 12}} {
		c := generate(t, t.TempDir(), closure.Config{Paths: test.paths, Depth: test.depth, Seed: 3, Key: newKey(t), MaxFileSize: 1})
		records, chain := map[nix.StorePath]*narinfo.Info{}, map[nix.StorePath]int{}
		for _, info := range c.Records {
			records[info.StorePath] = info
			longest := 0
			for _, ref := range info.References {
				longest = max(longest, chain[ref])
			}
			chain[info.StorePath] = 1 + longest
		}
		reached := map[nix.StorePath]bool{}
		reach(c.Root().StorePath, records, reached)
		if got := chain[c.Root().StorePath]; got != test.depth || len(reached) != test.paths {
			t.Errorf("%+v: %d paths, the longest chain has %d", test, len(reached), got)
		}
	}
}

// checkArchive reads the whole NAR strictly.
func checkArchive(t *testing.T, archive []byte) {
	t.Helper()
	r := nar.NewReader(bytes.NewReader(archive))
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func reach(path nix.StorePath, all map[nix.StorePath]*narinfo.Info, reached map[nix.StorePath]bool) {
	if reached[path] {
		return
	}
	reached[path] = true
	for _, ref := range all[path].References {
		reach(ref, all, reached)
	}
}

func TestSeed(t *testing.T) {
	key := newKey(t)
	for _, compression := range []string{"none", "xz", "zstd"} {
		files := func(seed uint64) map[string]string {
			dir := t.TempDir()
			generate(t, dir, closure.Config{Paths: 5, Seed: seed, Key: key, Compression: compression})
			files := map[string]string{}
			err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				b, err := os.ReadFile(filepath.Join(dir, path))
				files[path] = string(b)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return files
		}
		one, again, other := files(1), files(1), files(2)
		if !cmp.Equal(one, again) {
			t.Errorf("%s: the same seed makes different closures", compression)
		}
		for path := range one {
			if _, ok := other[path]; ok && path != "nix-cache-info" {
				t.Errorf("%s: %s is made by two seeds", compression, path)
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	for name, cfg := range map[string]closure.Config{
		"no paths":            {Key: newKey(t)},
		"too deep":            {Paths: 3, Depth: 4, Key: newKey(t)},
		"not deep enough":     {Paths: 3, Depth: 1, Key: newKey(t)},
		"unknown compression": {Paths: 1, Key: newKey(t), Compression: "lz4"},
	} {
		if _, err := closure.Generate(t.Context(), t.TempDir(), cfg); err == nil {
			t.Errorf("%s: Generate = nil, want an error", name)
		}
	}
}

func TestNixImports(t *testing.T) {
	for _, test := range []struct {
		compression string
		paths       int
		largeSize   int64
	}{
		{"none", 30, 3<<20 + 5},
		{"xz", 10, 0},
		{"zstd", 10, 1 << 20},
		{"", 1, 0},
	} {
		t.Run("compression "+test.compression, func(t *testing.T) {
			cache, root, key := t.TempDir(), t.TempDir(), newKey(t)
			c := generate(t, cache, closure.Config{
				Paths: test.paths, Seed: 7, Key: key, LargeSize: test.largeSize, Compression: test.compression,
			})
			if got := c.Records[0].NARSize; got < test.largeSize {
				t.Errorf("the large path has %d bytes, want more than %d", got, test.largeSize)
			}
			path := c.Root().StorePath.String()
			store := "local?root=" + root
			runNix(t, key.Public(), "copy", "--from", "file://"+cache, "--to", store, path)
			runNix(t, key.Public(), "store", "verify", "--store", store, "--recursive", path)
			got := strings.Fields(runNix(t, key.Public(), "path-info", "--store", store, "--recursive", path))
			var want []string
			for _, info := range c.Records {
				want = append(want, info.StorePath.String())
				checkImported(t, root, info)
			}
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("paths in the store (-want +got):\n%s", diff)
			}
			// Without the key nothing is taken.
			out, err := nixCommand(t, newKey(t).Public(), "copy", "--from", "file://"+cache, "--to", "local?root="+t.TempDir(), path)
			if err == nil || !strings.Contains(out, "lacks a valid signature") {
				t.Errorf("nix copy without the key: %v, %s", err, out)
			}
		})
	}
}

func checkImported(t *testing.T, root string, info *narinfo.Info) {
	t.Helper()
	hash := sha256.New()
	if err := nar.Dump(hash, filepath.Join(root, info.StorePath.String())); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(hash.Sum(nil), info.NARHash[:]) {
		t.Errorf("%s has another NAR hash in Nix's store", info.StorePath)
	}
}

func runNix(t *testing.T, trusted narinfo.PublicKey, args ...string) string {
	t.Helper()
	out, err := nixCommand(t, trusted, args...)
	if err != nil {
		t.Fatalf("nix %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// nixCommand runs nix with all that it writes below a temporary directory. Its
// output includes what it says on standard error where it fails.
func nixCommand(t *testing.T, trusted narinfo.PublicKey, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("nix")
	if err != nil {
		t.Fatalf("%v: this test needs the real Nix; install it with `make deps`", err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, append([]string{"--extra-experimental-features", "nix-command"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CACHE_HOME="+home, "XDG_CONFIG_HOME="+home, "NIX_CONF_DIR="+home,
		"NIX_STATE_DIR="+filepath.Join(home, "state"), "NIX_LOG_DIR="+filepath.Join(home, "log"),
		"NIX_CONFIG=build-users-group =\nsandbox = false\ntrusted-public-keys = "+trusted.String()+"\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		out = append(out, stderr.Bytes()...)
	}
	return string(out), err
}

func TestWalk(t *testing.T) {
	c := generate(t, t.TempDir(), closure.Config{Paths: 40, Seed: 1, Key: newKey(t)})
	byPart := make(map[nix.HashPart]*narinfo.Info)
	for _, info := range c.Records {
		byPart[info.StorePath.HashPart()] = info
	}
	var under, most atomic.Int32
	got, err := closure.Walk(c.Root().StorePath.HashPart(), func(part nix.HashPart) (*narinfo.Info, error) {
		if n := under.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer under.Add(-1)
		return byPart[part], nil
	})
	if err != nil || len(got) != len(c.Records) || got[0] != c.Root() {
		t.Errorf("Walk() = %d records, %v, want all %d, the root first", len(got), err, len(c.Records))
	}
	if most.Load() > closure.NarinfosAtOnce {
		t.Errorf("%d asked for at once", most.Load())
	}
	lost := errors.New("lost")
	if _, err := closure.Walk(c.Root().StorePath.HashPart(), func(nix.HashPart) (*narinfo.Info, error) { return nil, lost }); !errors.Is(err, lost) {
		t.Errorf("Walk() = %v, want the error of ask", err)
	}
}
