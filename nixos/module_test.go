package nixos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
)

// TestParse wants every version of Nix to understand every file.
func TestParse(t *testing.T) {
	var files []string
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".nix") {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("no files of Nix: %v", err)
	}
	for _, bin := range versions(t) {
		run(t, bin, append([]string{"--parse", "../flake.nix"}, files...)...)
	}
}

// TestModule wants every version of Nix to find no failure among the cases of
// tests/cases.nix and the profiles of docs/install.md, and the daemon to accept the
// settings that come of them, also when the system is built.
func TestModule(t *testing.T) {
	var got struct {
		Failures []string
		Settings map[string]map[string]any
		Script   string
	}
	dir := profiles(t)
	for _, bin := range versions(t) {
		got.Failures, got.Settings = nil, nil
		decode(t, run(t, bin, "--eval", "--strict", "--json", "--arg", "profiles", dir, "tests"), &got)
		if len(got.Failures) > 0 || len(got.Settings) == 0 {
			t.Errorf("with %s these cases went wrong: %q", bin, got.Failures)
		}
	}
	for name, settings := range got.Settings {
		text := marshal(t, settings)
		if made, err := build(t, got.Script, text); err != nil || !bytes.Equal(made, text) {
			t.Errorf("a system with case %s is not built: %v", name, err)
		}
		if p2p, ok := settings["p2p"].(map[string]any); ok {
			// These are only there where the unit runs.
			delete(p2p, "psk_file")
			delete(p2p, "allow_file")
		}
		text = marshal(t, settings)
		file := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		check := exec.CommandContext(t.Context(), filepath.Join(programs, "nar-p2pd"), "--check", "--config="+file)
		check.Env = []string{"HOME=" + t.TempDir()}
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("the daemon refuses what case %s makes: %v\n%s%s", name, err, out, text)
		}
	}
	if _, err := build(t, got.Script, []byte("[substituter]\ndeadlin = \"3s\"\n")); err == nil || !strings.Contains(err.Error(), `did you mean "substituter.deadline"`) {
		t.Errorf("a system with a misspelt setting is built: %v", err)
	}
}

// build runs what checks a file of settings when a system is built, as Nix would, and
// returns what it makes.
func build(t *testing.T, script string, text []byte) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	file, out := filepath.Join(dir, "nar-p2p.toml"), filepath.Join(dir, "out")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	script = strings.NewReplacer(
		"/nix/store/00000000000000000000000000000000-nar-p2p/bin", programs,
		"/nix/store/11111111111111111111111111111111-nar-p2p.toml", file,
	).Replace(script)
	sh := exec.CommandContext(t.Context(), "sh", "-euc", script)
	sh.Dir = dir
	sh.Env = []string{"PATH=" + os.Getenv("PATH"), "out=" + out}
	if said, err := sh.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	return os.ReadFile(out)
}

func marshal(t *testing.T, settings map[string]any) []byte {
	t.Helper()
	text, err := toml.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// profile is one in docs/install.md: it begins with its name in a comment.
var profile = regexp.MustCompile("(?s)```nix\n# ([a-z ]+)\n(.*?)```")

// profiles returns a folder with the profiles of docs/install.md.
func profiles(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var names []string
	for _, match := range profile.FindAllSubmatch(text, -1) {
		name := string(match[1])
		names = append(names, name)
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, " ", "-")), match[2], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"laptop", "office", "build farm", "bootstrap and relay"}, names); diff != "" {
		t.Errorf("profiles in docs/install.md (-want +got):\n%s", diff)
	}
	return dir
}

// TestFlake evaluates what the flake offers.
func TestFlake(t *testing.T) {
	hash, err := os.ReadFile("vendor-hash")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"names":      []any{"apps", "checks", "darwinModules", "devShells", "nixosModules", "overlays", "packages"},
		"systems":    []any{"aarch64-darwin", "aarch64-linux", "x86_64-darwin", "x86_64-linux"},
		"checks":     []any{"lint", "module", "package", "tests", "vm"},
		"vendorHash": strings.TrimSpace(string(hash)),
		"version":    "0.1.0-0123456",
	}
	for _, bin := range versions(t) {
		var got map[string]any
		decode(t, run(t, bin, "--eval", "--strict", "--json", "tests/flake.nix"), &got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("with %s (-want +got):\n%s", bin, diff)
		}
	}
}

// versions returns the folders of the programs of all versions of Nix.
func versions(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../.ci/nix-versions").Output()
	bins := slices.Collect(strings.FieldsSeq(string(out)))
	if err != nil || len(bins) == 0 {
		t.Fatalf("no version of Nix: %v", err)
	}
	return bins
}

// run returns what nix-instantiate prints. It needs no store.
func run(t *testing.T, bin string, args ...string) []byte {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "nix-instantiate"), args...)
	cmd.Env = append(os.Environ(), "NIX_REMOTE=dummy://", "NIX_PATH=")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	return out
}

func decode(t *testing.T, data []byte, value any) {
	t.Helper()
	if err := json.Unmarshal(data, value); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
}
