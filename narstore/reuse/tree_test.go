package reuse_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
)

// grower grows trees as random as they are real: what it draws is the same for
// every generation, but the hash parts of the store paths that it mentions.
type grower struct {
	*rand.Rand
	generation int
}

// mention is a store path, or what only looks like one and does not change.
func (g *grower) mention() string {
	part := partOf(g.generation, g.IntN(12)).String()
	switch g.IntN(8) {
	case 0: // a hash part that is not in its usual surroundings does not change
		return "/nix/store/" + partOf(0, g.IntN(12)).String() + "_name"
	case 1:
		return partOf(0, g.IntN(12)).String() + "-name"
	case 2: // too short, too long, and of other characters
		part = partOf(0, 1).String()
		return "/" + part[:31] + "-/" + strings.Repeat("a", 33) + "-/" + strings.Repeat("e", 32) + "-"
	case 3: // two in each other's arms
		return "/" + part + "-/" + part + "-"
	default:
		return "/nix/store/" + part + "-name-1.0/lib"
	}
}

// content is that of a file: text or noise, with mentions from none to so many
// that chunks are left unmasked.
func (g *grower) content() []byte {
	size := []int{g.IntN(300), g.IntN(10_000), 16<<10 + g.IntN(100), g.IntN(400_000), 256<<10 + g.IntN(200)}[g.IntN(5)]
	b := make([]byte, size)
	if g.IntN(2) == 0 {
		for i := range b {
			b[i] = byte(g.Uint32())
		}
	} else {
		copy(b, bytes.Repeat(fmt.Append(nil, "text ", g.IntN(100), "/"), size/5))
	}
	distance := []int{size + 1, 20_000, 700, 60}[g.IntN(4)]
	for at := g.IntN(distance); ; at += 1 + g.IntN(2*distance) {
		mention := g.mention()
		if at+len(mention) > size {
			break // half of one would change
		}
		at += copy(b[at:], mention)
	}
	return b
}

func (g *grower) grow(tb testing.TB, dir string, depth int) {
	tb.Helper()
	check := func(err error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	check(os.Mkdir(dir, 0o755))
	for i := range 2 + g.IntN(6) {
		path := filepath.Join(dir, fmt.Sprint("entry", i))
		switch kind := g.IntN(6); {
		case kind == 0 && depth > 0:
			g.grow(tb, path, depth-1)
		case kind == 1:
			check(os.Symlink(strings.ReplaceAll(g.mention(), "\x00", ""), path))
		default:
			mode := os.FileMode(0o644)
			if g.IntN(3) == 0 {
				mode = 0o755
			}
			check(os.WriteFile(path, g.content(), mode))
		}
	}
}

// tree is the NAR of a random tree in a generation.
func tree(tb testing.TB, seed uint64, generation int) []byte {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "tree")
	(&grower{rand.New(rand.NewPCG(seed, 7)), generation}).grow(tb, dir, 2)
	var b bytes.Buffer
	if err := nar.Dump(&b, dir); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// rebuild makes a NAR out of an indexed one and what of it has to be fetched, and
// checks that it is right as a whole.
func (l *lab) rebuild(tb testing.TB, want reuse.Want, fresh []byte) (fetched int64) {
	tb.Helper()
	m := manifestOf(tb, fresh)
	s := l.Begin(tb.Context(), want)
	defer s.Close()
	places := make([]reuse.Place, len(m.Chunks))
	s.Find(m.Chunks, places)
	sum := sha256.New()
	for i := range m.Chunks {
		c := &m.Chunks[i]
		b := make([]byte, c.Length)
		if places[i].Found() {
			if _, err := s.Take(tb.Context(), places[i], c, m.HashParts, b); err == nil {
				sum.Write(b)
				continue
			}
		}
		sum.Write(fresh[c.Offset:][:c.Length])
		fetched += int64(c.Length)
	}
	if nix.NARHash(sum.Sum(nil)) != want.Hash {
		tb.Error("the NAR is not what it should be")
	}
	return fetched
}

// Whatever a tree is like: rebuilt with other hash parts it is right, and what is
// masked need not be fetched. So it is with another tree's chunks in the index.
func TestRandomTrees(t *testing.T) {
	for seed := range uint64(8) {
		store := newStore()
		old, fresh := tree(t, seed, 1), tree(t, seed, 2)
		store.add(t, "tree-1.0", 1, old)
		store.add(t, "tree-0.9", 1, tree(t, seed+1000, 1))
		l := newLab(t, store, open(t), reuse.Config{})
		want := target(t, "tree-1.0", 2, fresh)
		l.relate(t, want)
		if _, err := l.Assess(t.Context(), want, manifestOf(t, fresh)); err != nil { // and so they are indexed
			t.Fatal(err)
		}
		fetched := l.rebuild(t, want, fresh)
		var unmasked int64
		for _, c := range manifestOf(t, fresh).Chunks {
			if !c.Masked && !bytes.Equal(fresh[c.Offset:][:c.Length], old[c.Offset:][:c.Length]) {
				unmasked += int64(c.Length)
			}
		}
		if fetched != unmasked {
			t.Errorf("seed %d: fetched %d of %d bytes, want %d, which cannot be masked", seed, fetched, len(fresh), unmasked)
		}
		l.stop()
	}
}

// Runs at every place around the limit of a chunk, in either build.
func TestRunsAtChunkLimits(t *testing.T) {
	content := random(3, 300_000)
	limit := manifestOf(t, content).Chunks[0].Length
	store := newStore()
	l := newLab(t, store, open(t), reuse.Config{})
	for shift := -40; shift <= 40; shift += 3 {
		place := func(generation int) []byte {
			b := bytes.Clone(content)
			copy(b[limit+shift:], "/"+partOf(generation, 1).String()+"-")
			return b
		}
		old, fresh := place(1), place(2)
		name := fmt.Sprintf("limit%d-1.0", shift+40)
		info := store.add(t, name, 1, old)
		want := target(t, name, 2, fresh)
		l.relate(t, want)
		if _, err := l.Assess(t.Context(), want, manifestOf(t, fresh)); err != nil { // and so it is indexed
			t.Fatal(err)
		}
		if fetched := l.rebuild(t, want, fresh); fetched > 0 {
			t.Errorf("run at %d from the limit: fetched %d bytes of %d", shift, fetched, info.NARSize)
		}
	}
}
