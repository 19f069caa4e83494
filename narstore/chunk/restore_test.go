package chunk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// rebuilt returns two NARs that differ in the hash parts of their runs alone.
func rebuilt(content byte, n, distance int) (old, fresh []byte) {
	return withRuns(content, 1, n, distance), withRuns(content, 2, n, distance)
}

func TestSplitEqualsBuild(t *testing.T) {
	for _, nar := range [][]byte{
		random(1, 1), random(1, chunk.ImplicitSize), random(1, chunk.ImplicitSize+1), random(2, 3<<20),
		withRuns(1, 1, 3<<20, 2000), withRuns(1, 1, 1<<20, 35), make([]byte, 1<<20),
	} {
		m, _ := build(t, nar)
		var got []chunk.Chunk
		err := chunk.Split(t.Context(), bytes.NewReader(nar), int64(len(nar)), func(chunks []chunk.Chunk) error {
			got = append(got, chunks...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range m.Chunks {
			c := &m.Chunks[i]
			c.Runs = nil
			if !c.Masked && i < len(got) && got[i].Masked {
				// The manifest has no room for it, or is implied.
				c.Masked, c.MaskedSum = true, got[i].MaskedSum
			}
		}
		if diff := cmp.Diff(m.Chunks, got); diff != "" {
			t.Errorf("NAR of %d bytes (-Build +Split):\n%s", len(nar), diff)
		}
	}
}

func TestSplitFails(t *testing.T) {
	broken := errors.New("broken")
	nar := random(1, 1<<20)
	nothing := func([]chunk.Chunk) error { return nil }
	if err := chunk.Split(t.Context(), bytes.NewReader(nar), int64(len(nar)), func([]chunk.Chunk) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Split = %v, want what f returned", err)
	}
	for _, size := range []int64{0, -1, chunk.MaxNARSize + 1} {
		if err := chunk.Split(t.Context(), bytes.NewReader(nar), size, nothing); err == nil {
			t.Errorf("Split of %d bytes is accepted", size)
		}
	}
	for _, size := range []int64{1<<20 - 1, 1<<20 + 1} {
		if err := chunk.Split(t.Context(), bytes.NewReader(nar), size, nothing); !errors.Is(err, chunk.ErrCorrupt) {
			t.Errorf("Split of %d bytes of %d = %v", len(nar), size, err)
		}
	}
}

// TestRestore makes every chunk of a NAR out of that of another build.
func TestRestore(t *testing.T) {
	for name, distance := range map[string]int{"few runs": 30_000, "many runs": 300, "the most runs": 65} {
		t.Run(name, func(t *testing.T) {
			old, fresh := rebuilt(1, 2<<20, distance)
			m, _ := build(t, fresh)
			masked := 0
			for i := range m.Chunks {
				c := &m.Chunks[i]
				want := fresh[c.Offset:][:c.Length]
				got := bytes.Clone(old[c.Offset:][:c.Length])
				changed, err := c.Restore(got, m.HashParts)
				switch {
				case !c.Masked && !bytes.Equal(want, old[c.Offset:][:c.Length]):
					if !errors.Is(err, chunk.ErrDifferent) {
						t.Errorf("chunk at %d, which is not masked: %v", c.Offset, err)
					}
					continue
				case err != nil || changed != c.Masked:
					t.Errorf("chunk at %d: changed %t, %v", c.Offset, changed, err)
				case !bytes.Equal(got, want):
					t.Errorf("chunk at %d is not what it should be", c.Offset)
				}
				if c.Masked {
					masked++
				}
				if changed, err := c.Restore(got, m.HashParts); changed || err != nil {
					t.Errorf("chunk at %d once more: changed %t, %v", c.Offset, changed, err)
				}
			}
			if masked == 0 {
				t.Error("no chunk is masked")
			}
		})
	}
}

func TestRestoreRefuses(t *testing.T) {
	old, fresh := rebuilt(1, 100_000, 1000)
	m, _ := build(t, fresh)
	c := m.Chunks[0]
	if !c.Masked || len(c.Runs) < 10 {
		t.Fatalf("the chunk has %d runs", len(c.Runs))
	}
	old = old[:c.Length]
	with := func(at int, text string) []byte {
		b := bytes.Clone(old)
		copy(b[at:], text)
		return b
	}
	first := bytes.IndexByte(old[500:], '/') + 500
	fewer := c
	fewer.Runs = c.Runs[1:]
	more := c
	more.Runs = append([]uint32{0}, c.Runs...)
	beyond := c
	beyond.Runs = append([]uint32{uint32(len(m.HashParts))}, c.Runs[1:]...)
	other := c
	other.Sum[0] ^= 1
	for name, tt := range map[string]struct {
		chunk chunk.Chunk
		bytes []byte
	}{
		"too short":               {c, old[:c.Length-1]},
		"too long":                {c, append(bytes.Clone(old), 0)},
		"a run less":              {c, with(first, "x")},
		"a run more":              {c, with(700, runText(3, 1))},
		"one that is no run":      {c, with(700, strings.Replace(runText(3, 1), "-", "+", 1))},
		"another byte":            {c, with(20, "another byte")},
		"runs less than there":    {fewer, old},
		"runs more than there":    {more, old},
		"a hash part that is not": {beyond, old},
		"another sum":             {other, old},
	} {
		if changed, err := tt.chunk.Restore(bytes.Clone(tt.bytes), m.HashParts); !errors.Is(err, chunk.ErrDifferent) {
			t.Errorf("%s: changed %t, %v", name, changed, err)
		}
	}
	if _, err := c.Restore(bytes.Clone(old), m.HashParts); err != nil {
		t.Errorf("what they are made of is refused: %v", err)
	}
}

// TestRestoreNamed makes chunks out of such in which a path has another name.
func TestRestoreNamed(t *testing.T) {
	content := random(1, 100_000)
	mention := func(part byte, name string) []byte {
		b := bytes.Clone(content)
		for at := 1000; at+100 < len(b); at += 5000 {
			copy(b[at:], runText(part, 0)+name)
		}
		return b
	}
	old, fresh := mention(1, "foo-1.0/lib"), mention(2, "foo-1.1/lib")
	m, _ := build(t, fresh)
	to := func(from, to string) chunk.Rename {
		return func(nix.HashPart, nix.HashPart) (string, string) { return from, to }
	}
	for name, tt := range map[string]struct {
		rename chunk.Rename
		want   bool
	}{
		"the right names":      {to("foo-1.0", "foo-1.1"), true},
		"a part of the name":   {to("foo-1", "foo-1"), false},
		"another length":       {to("foo-1.0", "foo-1.1.1"), false},
		"another name there":   {to("bar-1.0", "foo-1.1"), false},
		"another name to have": {to("foo-1.0", "foo-1.2"), false},
		"no names":             {to("", ""), false},
		"more than there is":   {to(strings.Repeat("x", 1000), strings.Repeat("y", 1000)), false},
	} {
		for i := range m.Chunks {
			c := &m.Chunks[i]
			got := bytes.Clone(old[c.Offset:][:c.Length])
			err := c.RestoreNamed(got, m.HashParts, tt.rename)
			if ok := err == nil; ok != (tt.want || !c.Masked) || err != nil && !errors.Is(err, chunk.ErrDifferent) {
				t.Errorf("%s: chunk at %d: %v", name, c.Offset, err)
			}
			if err == nil && !bytes.Equal(got, fresh[c.Offset:][:c.Length]) {
				t.Errorf("%s: chunk at %d is wrong", name, c.Offset)
			}
		}
	}
}

// FuzzRestore gives any bytes to the chunks of any manifest: they become the
// chunk or are refused. What the mask says is the same becomes it.
func FuzzRestore(f *testing.F) {
	old, fresh := rebuilt(1, 400, 70)
	f.Add(old, fresh)
	f.Add([]byte("/0123456789abcdfghijklmnpqrsvwxyz-"), []byte("//0123456789abcdfghijklmnpqrsvwxyz-/"))
	f.Fuzz(func(t *testing.T, local, nar []byte) {
		if len(nar) == 0 || len(nar) > chunk.MaxLength {
			return
		}
		// A chunk of one's own, masked whatever a manifest would have room for.
		masked, parts := chunk.Mask(nar)
		c := chunk.Chunk{Length: len(nar), Sum: sha256.Sum256(nar), Masked: len(parts) > 0, MaskedSum: sha256.Sum256(masked)}
		for i := range parts {
			c.Runs = append(c.Runs, uint32(i))
		}
		localMasked, localParts := chunk.Mask(local)
		got := bytes.Clone(local)
		changed, err := c.Restore(got, parts)
		switch same := bytes.Equal(localMasked, masked); {
		case same != (err == nil):
			t.Errorf("masked bytes are the same: %t, Restore = %v", same, err)
		case err == nil && !bytes.Equal(got, nar):
			t.Error("bytes are accepted that are not the chunk's")
		case err == nil && changed == cmp.Equal(localParts, parts):
			t.Errorf("changed = %t for %v and %v", changed, localParts, parts)
		}
	})
}

// FuzzReconstruction takes chunks of manifests that nobody made out of bytes that
// nobody chose.
func FuzzReconstruction(f *testing.F) {
	old, fresh := rebuilt(1, 17_000, 2000)
	encoded := referenceManifest(fresh).Encode()
	f.Add(encoded, old)
	f.Add(encoded[:len(encoded)-3], fresh)
	f.Fuzz(func(t *testing.T, encoded, local []byte) {
		if len(encoded) < 48 {
			return
		}
		d := chunk.NewDecoder(nix.NARHash(encoded[16:48]), int64(binary.BigEndian.Uint64(encoded[8:])))
		_, _ = d.Write(encoded) // as far as it goes
		chunks, parts := d.Chunks(), d.HashParts()
		for i := range chunks {
			c := &chunks[i]
			if c.Offset+int64(c.Length) > int64(len(local)) {
				break
			}
			got := bytes.Clone(local[c.Offset:][:c.Length])
			if _, err := c.Restore(got, parts); err == nil && sha256.Sum256(got) != c.Sum {
				t.Errorf("chunk at %d has another sum", c.Offset)
			}
		}
	})
}
