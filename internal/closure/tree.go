package closure

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// names are those that the paths have by turns, before their version.
var names = []string{
	"glibc", "bash", "zlib", "coreutils", "openssl", "setup-hook.sh", "ncurses", "readline", "python3", "curl",
	"perl", "gawk", "source", "sqlite", "expat", "libffi", "gnugrep", "xz", "systemd-minimal-libs",
}

// pkg is one package of a closure.
type pkg struct {
	path nix.StorePath
	// references are the other packages that it mentions; self is whether it
	// mentions itself.
	references []nix.StorePath
	self       bool
	// isFile makes it a single file instead of a directory.
	isFile      bool
	maxFileSize int
	largeSize   int64
	largeText   bool
	random      *rand.Rand
}

// mentioned returns all store paths that the files name.
func (p *pkg) mentioned() []nix.StorePath {
	if p.self {
		return append(slices.Clip(p.references), p.path)
	}
	return p.references
}

// write makes the package's tree at root.
func (p *pkg) write(root string) error {
	if p.isFile && p.largeSize == 0 {
		return os.WriteFile(root, p.script(), 0o755)
	}
	name := p.path.Name()
	at := func(elements ...string) string { return filepath.Join(append([]string{root}, elements...)...) }
	for _, dir := range []string{"bin", "lib", "nix-support", "share/doc/" + name, "var/empty"} {
		if err := os.MkdirAll(at(dir), 0o755); err != nil {
			return err
		}
	}
	links := map[string]string{
		at("bin", name+"-config"):   name,
		at("lib", "lib"+name+".so"): "lib" + name + ".so.1",
	}
	for _, ref := range p.mentioned() {
		links[at("lib", ref.Name())] = ref.String() + "/lib"
	}
	for link, target := range links {
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	var inputs []byte
	for _, path := range p.mentioned() {
		inputs = append(append(inputs, path.String()...), ' ')
	}
	for _, f := range []struct {
		name     string
		contents []byte
		mode     os.FileMode
	}{
		{at("bin", name), p.script(), 0o755},
		{at("lib", "lib"+name+".so.1"), p.library(), 0o755},
		{at("nix-support", "propagated-build-inputs"), inputs, 0o644},
		{at("share", "doc", name, "README"), p.text(), 0o644},
		{at("share", "empty"), nil, 0o644},
	} {
		if err := os.WriteFile(f.name, f.contents, f.mode); err != nil {
			return err
		}
	}
	if p.largeSize > 0 {
		return p.writeLarge(at("share", "large"))
	}
	return nil
}

// script is a wrapper as nixpkgs writes them.
func (p *pkg) script() []byte {
	var b bytes.Buffer
	b.WriteString("#! /bin/sh -e\n")
	for _, path := range p.mentioned() {
		fmt.Fprintf(&b, "PATH=$PATH${PATH:+:}%s/bin\n", path)
	}
	fmt.Fprintf(&b, "export PATH\nexec -a %q \"$(dirname \"$0\")/.%s-wrapped\" \"$@\"\n", p.path.Name(), p.path.Name())
	return b.Bytes()
}

// library looks like a binary: a header, and bytes among which the paths stand
// as rpaths do. Half of them can be compressed.
func (p *pkg) library() []byte {
	b := make([]byte, p.random.IntN(p.maxFileSize+1))
	fill(p.random, b[:len(b)/2])
	out := append([]byte("\x7fELF\x02\x01\x01\x00"), b...)
	for _, path := range p.mentioned() {
		at := 8 + p.random.IntN(len(out)-7)
		rpath := fmt.Sprintf("\x00%s/lib:%s/lib64\x00", path, path)
		out = append(out[:at], append([]byte(rpath), out[at:]...)...)
	}
	return out
}

func (p *pkg) text() []byte {
	var b strings.Builder
	for range p.random.IntN(50) {
		fmt.Fprintf(&b, "%s does what %s does, only %d times as well.\n",
			p.path.Name(), names[p.random.IntN(len(names))], p.random.IntN(10))
	}
	return []byte(b.String())
}

// writeLarge writes p.largeSize bytes.
func (p *pkg) writeLarge(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	contents := fill
	if p.largeText {
		contents = prose(p.random)
	}
	b := make([]byte, 1<<20)
	for left := p.largeSize; left > 0; left -= int64(len(b)) {
		b = b[:min(int64(len(b)), left)]
		contents(p.random, b)
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	return f.Close()
}

// prose returns what fills bytes with words, few of which are frequent, as it is
// in every language.
func prose(r *rand.Rand) func(r *rand.Rand, b []byte) {
	words := make([][]byte, 1<<14)
	for i := range words {
		word := make([]byte, 2+r.IntN(10))
		for j := range word {
			word[j] = byte('a' + r.IntN(26))
		}
		words[i] = append(word, ' ')
	}
	words[0] = []byte(".\n")
	frequent := rand.NewZipf(r, 1.05, 3, uint64(len(words)-1))
	return func(_ *rand.Rand, b []byte) {
		for len(b) > 0 {
			b = b[copy(b, words[frequent.Uint64()]):]
		}
	}
}
