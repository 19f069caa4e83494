package reuse_test

import (
	"bytes"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
)

// naming is content that mentions a path at every distance bytes.
func naming(content []byte, distance int, path nix.StorePath) []byte {
	b := bytes.Clone(content)
	for at := distance; at+300 <= len(b); at += distance {
		copy(b[at:], path.String()+"/lib")
	}
	return b
}

// TestRenamedReference rebuilds a path after something that it refers to was
// rebuilt under another name.
func TestRenamedReference(t *testing.T) {
	content := random(1, 2<<20)
	changed := bytes.Clone(content)
	copy(changed[1<<20:], random(2, 200<<10))
	old := pathOf(t, "foo-1.0", 1)
	for _, tt := range []struct {
		name    string
		renamed string
		content []byte
		unknown bool // its references are not known
		// least and most of the bytes are to be missing.
		least, most int64
	}{
		{name: "of one length", renamed: "foo-1.1", content: content, most: 0},
		{name: "with a change", renamed: "foo-1.1", content: changed, least: 100 << 10, most: 700 << 10},
		{name: "longer", renamed: "foo-1.10", content: content, least: 1 << 20, most: 2 << 20},
		{name: "another package", renamed: "bar-1.1", content: content, least: 1 << 20, most: 2 << 20},
		{name: "unknown", renamed: "foo-1.1", content: content, unknown: true, least: 1 << 20, most: 2 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newStore()
			info := store.add(t, "app-1.0", 1, naming(content, 30_000, old))
			info.References = []nix.StorePath{old}
			l := newLab(t, store, open(t), reuse.Config{})
			dependency := pathOf(t, tt.renamed, 2)
			fresh := naming(tt.content, 30_000, dependency)
			want := target(t, "app-1.0", 2, fresh)
			if !tt.unknown {
				want.References = []nix.StorePath{dependency}
			}
			l.relate(t, want)
			m := manifestOf(t, fresh)
			if _, err := l.Assess(t.Context(), want, m); err != nil { // and so the relative is indexed
				t.Fatal(err)
			}
			s := l.Begin(t.Context(), want)
			defer s.Close()
			places := make([]reuse.Place, len(m.Chunks))
			s.Find(m.Chunks, places)
			missing := int64(0)
			for i := range m.Chunks {
				c := &m.Chunks[i]
				places[i] = s.Guess(t.Context(), places[i], c, m.HashParts)
				b := make([]byte, c.Length)
				if !places[i].Found() {
					missing += int64(c.Length)
				} else if _, err := s.Take(t.Context(), places[i], c, m.HashParts, b); err != nil {
					t.Errorf("chunk at %d: %v", c.Offset, err)
				} else if !bytes.Equal(b, fresh[c.Offset:][:c.Length]) {
					t.Errorf("chunk at %d is wrong", c.Offset)
				}
			}
			if missing < tt.least || missing > tt.most {
				t.Errorf("%d bytes of %d are missing, want %d to %d", missing, len(fresh), tt.least, tt.most)
			}
			if named := s.Taken(reuse.ByName); (named > 0) != (tt.most < 1<<20) {
				t.Errorf("%d bytes were taken with other names", named)
			}
		})
	}
}
