package rebuild_test

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/e2e/rebuild"
)

// write writes a closure and returns its files.
func write(t *testing.T, cfg rebuild.Config) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := rebuild.Write(dir, cfg); err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// differing returns the names of files that are not the same.
func differing(a, b map[string]string) (names []string) {
	for name := range maps.Keys(a) {
		if a[name] != b[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestAClosureDependsOnItsConfigAlone(t *testing.T) {
	cfg := rebuild.Config{Packages: 14, Seed: 1, MedianCode: 20 << 10}
	once, again := write(t, cfg), write(t, cfg)
	if diff := cmp.Diff(once, again); diff != "" {
		t.Errorf("the same closure twice:\n%.2000s", diff)
	}
	cfg.Seed = 2
	if other := write(t, cfg); other["src/libsolder/src/paths.c"] == "" || len(differing(once, other)) < len(once)/2 {
		t.Error("another seed makes nearly the same closure")
	}
}

func TestAChangeChangesNothingElse(t *testing.T) {
	cfg := rebuild.Config{Packages: 14, Seed: 1, MedianCode: 40 << 10}
	before := write(t, cfg)
	after := func(change rebuild.Change) (map[string]string, []string) {
		cfg.Change = change
		files := write(t, cfg)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(files))); diff != "" {
			t.Errorf("change %d: names of files:\n%s", change, diff)
		}
		return files, differing(before, files)
	}

	line, names := after(rebuild.Line)
	if len(names) != 1 || !strings.HasPrefix(names[0], "src/libsolder/src/") {
		t.Fatalf("a line more changes %v, want a file of the leaf", names)
	}
	was, is := before[names[0]], line[names[0]]
	if added := strings.Count(is, "\n") - strings.Count(was, "\n"); added != 2 || len(is)-len(was) > 100 {
		t.Errorf("there are %d lines more", added)
	}

	_, names = after(rebuild.Rename)
	if len(names) != 2 || names[0] != "default.nix" {
		t.Errorf("a new version changes %v, want the expression and a file of the leaf", names)
	}

	rewritten, names := after(rebuild.Functions)
	dir := "src/" + rebuild.Rewritten(cfg) + "/src/"
	share := 0
	for _, name := range names {
		if !strings.HasPrefix(name, dir) {
			t.Errorf("rewritten functions change %s", name)
		}
		share += len(rewritten[name])
	}
	if share == 0 {
		t.Error("no function was rewritten")
	}
}

// part is a hash part.
func part(c string) string { return strings.Repeat(c, 32) }

// text returns bytes in which a store path is mentioned now and then.
func text(seed uint64, path string) string {
	r := rand.New(rand.NewPCG(seed, seed))
	var b strings.Builder
	for i := range 40_000 {
		if i%500 == 0 {
			b.WriteString("/nix/store/" + path + "\n")
		}
		b.WriteByte(byte(r.Uint32()))
		b.WriteString(" word ")
	}
	return b.String()
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	place := func(name string, files ...string) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		for i, text := range files {
			if err := os.WriteFile(filepath.Join(path, string(rune('a'+i))), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	kept := place(part("k")+"-kept-1.0", text(1, part("k")+"-kept-1.0"))
	old := []string{
		kept,
		place(part("a")+"-same-1.0", text(2, "none")),
		place(part("b")+"-rebuilt-1.0", text(3, part("b")+"-rebuilt-1.0")),
		place(part("c")+"-small-1.0", "see /nix/store/"+part("b")+"-rebuilt-1.0"),
	}
	upgraded := []string{
		kept,
		place(part("0")+"-same-1.0", text(2, "none")),
		place(part("1")+"-rebuilt-1.0", text(3, part("1")+"-rebuilt-1.0")),
		place(part("2")+"-small-1.0", "see /nix/store/"+part("1")+"-rebuilt-1.0"),
		place(part("3")+"-new-1.0", "\x7fELF"+text(4, part("3")+"-new-1.0")),
	}
	u, err := rebuild.Measure(t.Context(), old, upgraded)
	if err != nil {
		t.Fatal(err)
	}
	parts := make(map[string]rebuild.Part)
	for _, p := range u.Each {
		parts[p.Name] = p
	}
	if p := parts["same-1.0"]; p.BySum != p.NAR {
		t.Errorf("a NAR that is there: %+v", p)
	}
	if p := parts["rebuilt-1.0"]; p.ByMaskedSum != p.NAR || p.Manifest == 0 {
		t.Errorf("a NAR that is there but for hash parts: %+v", p)
	}
	small, added := parts["small-1.0"], parts["new-1.0"]
	if small.Fetched != small.NAR || small.Manifest != 0 {
		t.Errorf("a small NAR: %+v", small)
	}
	if added.Fetched != added.NAR {
		t.Errorf("a NAR of which nothing is there: %+v", added)
	}
	if u.Paths != 4 || len(u.Each) != 4 || u.Fetched != small.NAR+added.NAR || u.Small != small.NAR ||
		u.BySum+u.ByMaskedSum+u.Fetched != u.NARs || u.OtherNARs != u.NARs-parts["same-1.0"].NAR ||
		u.ELF < added.NAR/2 || u.ELF > added.NAR || u.OtherFiles >= u.OtherNARs {
		t.Errorf("in all: %+v", u)
	}
}
