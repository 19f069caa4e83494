package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// addressed makes store paths of all kinds of content addresses that Nix makes,
// unsigned, in a cache of uncompressed NARs.
func addressed(t *testing.T, l *lab.Lab, dir string) map[string]nix.StorePath {
	t.Helper()
	producer := l.Nix("producer", lab.NixConfig{})
	paths := make(map[string]nix.StorePath)
	add := func(name, out string) {
		path, err := nix.ParseStorePath(strings.Trim(out, "\" \n"))
		if err != nil {
			t.Fatal(err)
		}
		producer.MustRun("nix", "copy", "--to", "file://"+dir+"?compression=none", path.String())
		paths[name] = path
	}
	add("tree by sha256", producer.MustRun("nix-store", "--add", l.File("tree", "contents of a tree")))
	for _, algorithm := range []string{"md5", "sha1", "sha256", "sha512"} {
		file := l.File("file-"+algorithm, "contents of a file")
		add("file by "+algorithm, producer.MustRun("nix-store", "--add-fixed", algorithm, file))
		if algorithm != "sha256" {
			add("tree by "+algorithm, producer.MustRun("nix-store", "--add-fixed", "--recursive", algorithm, file))
		}
	}
	add("text", producer.MustRun("nix-instantiate", "--eval", "--read-write-mode", "-E", `builtins.toFile "text" "contents of a text"`))
	add("text with a reference", producer.MustRun("nix-instantiate", "--eval", "--read-write-mode", "-E",
		`builtins.toFile "wrapper" "see ${builtins.toFile "dep" "contents of a dependency"}"`))
	add("tree that refers to itself", selfish(t, l, producer))
	// Nix would give the cache the highest priority.
	write(t, filepath.Join(dir, "nix-cache-info"), []byte("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"))
	return paths
}

// selfish makes a path whose file names the path itself.
func selfish(t *testing.T, l *lab.Lab, producer *lab.Nix) string {
	t.Helper()
	path, err := nix.ParseBaseName("0123456789abcdfghijklmnpqrsvwxyz-selfish")
	if err != nil {
		t.Fatal(err)
	}
	contents := []byte("I am " + path.String() + "\n")
	before, behind := nar.AroundFile(int64(len(contents)))
	archive := append(append(before, contents...), behind...)
	info := &narinfo.Info{
		StorePath: path, URL: "x.nar", Compression: "none", References: []nix.StorePath{path},
		NARHash: sha256.Sum256(archive), NARSize: int64(len(archive)),
	}
	dir := l.Dir("by-input")
	write(t, filepath.Join(dir, "nix-cache-info"), []byte("StoreDir: /nix/store\n"))
	write(t, filepath.Join(dir, path.HashPart().String()+".narinfo"), info.Bytes())
	write(t, filepath.Join(dir, "x.nar"), archive)
	producer.MustRun("nix", "copy", "--no-check-sigs", "--from", "file://"+dir, path.String())
	var made struct{ Rewrites map[string]string }
	if err := json.Unmarshal([]byte(producer.MustRun("nix", "store", "make-content-addressed", "--json", path.String())), &made); err != nil {
		t.Fatal(err)
	}
	return made.Rewrites[path.String()]
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// falsify changes a byte of the contents of every path in a cache, and the
// records accordingly.
func falsify(t *testing.T, dir string) {
	t.Helper()
	records, err := filepath.Glob(filepath.Join(dir, "*.narinfo"))
	if err != nil || len(records) == 0 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for _, name := range records {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		info, err := narinfo.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		archive, err := os.ReadFile(filepath.Join(dir, info.URL))
		if err != nil {
			t.Fatal(err)
		}
		before, _ := nar.AroundFile(0)
		archive[len(before)] ^= 1
		info.NARHash, info.FileHash, info.FileSize = sha256.Sum256(archive), "", 0
		info.URL = "nar/" + info.StorePath.HashPart().String() + ".nar" // files with the same contents share one
		write(t, filepath.Join(dir, info.URL), archive)
		write(t, name, info.Bytes())
	}
}

func TestNixSubstitutesUnsignedContent(t *testing.T) {
	l := lab.New(t)
	dir := l.Dir("cache")
	paths := addressed(t, l, dir)
	upstream := l.Upstream(dir)
	d := l.Daemon("daemon", lab.DaemonConfig{Upstreams: []string{upstream.URL}})
	store := l.Nix("consumer", lab.NixConfig{Substituters: []string{d.URL()}})
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			if err := store.Realise(path); err != nil {
				t.Error(err)
			}
		})
	}
	if store.MustRun("nix-store", "--verify", "--check-contents") != "" {
		t.Error("the store is not what it should be")
	}
}

// The daemon does not pass on what Nix would find out to be wrong, and says why.
func TestNixGoesOnBehindFalseContent(t *testing.T) {
	l := lab.New(t)
	dir, honest := l.Dir("cache"), l.Dir("honest")
	paths := addressed(t, l, dir)
	if err := os.CopyFS(honest, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	falsify(t, dir)
	upstream, other := l.Upstream(dir), l.Upstream(honest)
	d := l.Daemon("daemon", lab.DaemonConfig{Upstreams: []string{upstream.URL}})
	store := l.Nix("consumer", lab.NixConfig{Substituters: []string{d.URL(), other.URL}})
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			if err := store.Realise(path); err != nil {
				t.Error(err)
			}
			out, err := d.Ctl("explain", path.String())
			if err != nil {
				t.Fatal(err)
			}
			// What the NAR hash alone proves false is never believed.
			want := "the content of its unsigned record was not what its content address says"
			if name == "tree by sha256" {
				want = "trusted keys needed have signed it"
			}
			if flat := strings.Join(strings.Fields(out), " "); !strings.Contains(flat, want) {
				t.Errorf("explain does not say %q:\n%s", want, out)
			}
		})
	}
	store.MustRun("nix-store", "--verify", "--check-contents")
}

// What stands in a record beside what is signed ends some versions of Nix, or
// the build. None of it reaches them.
func TestNixGetsNoLineThatItStumblesOver(t *testing.T) {
	m := newTeam(t, 1, 0)
	name := filepath.Join(m.upstream.Dir, m.root().HashPart().String()+".narinfo")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, good, _ := strings.Cut(string(text), "\nSig: ")
	good, _, _ = strings.Cut(good, "\n")
	wrong := m.key.Sign("something else").String()
	zeros := strings.Repeat("0", 52)
	for what, lines := range map[string]string{
		"wrong signature before the good one":     "Sig: " + wrong + "\nSig: " + good,
		"malformed signature before the good one": "Sig: " + m.key.Name + "\nSig: " + good,
		"short signature before the good one":     "Sig: " + m.key.Name + ":AAAA\nSig: " + good,
		"address that does not yield the path":    "Sig: " + good + "\nCA: fixed:r:sha256:" + zeros,
		"address of a git tree":                   "Sig: " + good + "\nCA: fixed:git:sha1:" + zeros[:32],
		"address that cannot be read":             "Sig: " + good + "\nCA: fixed:r:quantum:" + zeros,
	} {
		t.Run(what, func(t *testing.T) {
			write(t, name, []byte(strings.Replace(string(text), "Sig: "+good, lines, 1)))
			d := m.Daemon(strings.ReplaceAll(what, " ", "-"), lab.DaemonConfig{Upstreams: []string{m.upstream.URL}, Keys: m.keys()})
			store := m.Nix("nix-"+strings.ReplaceAll(what, " ", "-"), lab.NixConfig{Substituters: []string{d.URL()}, TrustedKeys: m.keys()})
			if err := store.Realise(m.root()); err != nil {
				t.Error(err)
			}
		})
	}
}
