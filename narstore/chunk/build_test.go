package chunk_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// random returns n bytes that depend on seed alone.
func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// runText returns "/<hash part>-" of the i-th hash part of a seed.
func runText(seed byte, i int) string {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte{seed}, uint64(i)))
	return "/" + nix.EncodeBase32(sum[:20]) + "-"
}

// withRuns returns n random bytes with a run about every distance bytes.
func withRuns(content, parts byte, n, distance int) []byte {
	b := random(content, n)
	for i, at := 0, distance/2; at+34 <= n; i, at = i+1, at+distance {
		copy(b[at:], runText(parts, i))
	}
	return b
}

// build returns the manifest of a NAR and the encoding that was emitted.
func build(t *testing.T, nar []byte) (*chunk.Manifest, []byte) {
	t.Helper()
	var encoded []byte
	m, err := chunk.Build(t.Context(), bytes.NewReader(nar), sha256.Sum256(nar), int64(len(nar)), func(p []byte) error {
		encoded = append(encoded, p...)
		return nil
	})
	if err != nil {
		t.Fatalf("Build of %d bytes: %v", len(nar), err)
	}
	return m, encoded
}

// check verifies all that holds of every manifest.
func check(t *testing.T, nar []byte, m *chunk.Manifest, encoded []byte) {
	t.Helper()
	if diff := cmp.Diff(m.Encode(), encoded, cmp.Comparer(bytes.Equal)); diff != "" {
		t.Error("the emitted encoding is not that of the manifest")
	}
	if limit := chunk.MaxEncodedSize(m.NARSize); int64(len(encoded)) > limit {
		t.Errorf("encoding is of %d bytes, limit %d", len(encoded), limit)
	}
	if m.Root() != sha256.Sum256(encoded) {
		t.Error("root is not the encoding's sha-256")
	}
	decoded, err := chunk.Decode(encoded, m.NARHash, m.NARSize)
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	if diff := cmp.Diff(m, decoded); diff != "" {
		t.Errorf("decoded manifest (-built +decoded):\n%s", diff)
	}
	offset := int64(0)
	for i, c := range m.Chunks {
		if c.Offset != offset {
			t.Fatalf("chunk %d begins at %d, want %d", i, c.Offset, offset)
		}
		offset += int64(c.Length)
		checkChunk(t, m, c, nar[c.Offset:offset])
		if last := i == len(m.Chunks)-1; c.Length > chunk.MaxLength || c.Length < chunk.MinSize && !last {
			t.Errorf("chunk %d of %d has %d bytes", i, len(m.Chunks), c.Length)
		}
	}
	if offset != int64(len(nar)) {
		t.Errorf("chunks cover %d of %d bytes", offset, len(nar))
	}
}

// checkChunk compares a chunk with what its bytes alone say.
func checkChunk(t *testing.T, m *chunk.Manifest, c chunk.Chunk, data []byte) {
	t.Helper()
	if c.Sum != sha256.Sum256(data) {
		t.Errorf("chunk at %d: wrong sum", c.Offset)
	}
	if !c.Masked {
		return
	}
	masked, parts := chunk.Mask(data)
	if c.MaskedSum != sha256.Sum256(masked) {
		t.Errorf("chunk at %d: masked alone it differs from masked in the stream", c.Offset)
	}
	named := make([]nix.HashPart, len(c.Runs))
	for i, index := range c.Runs {
		named[i] = m.HashParts[index]
	}
	if diff := cmp.Diff(parts, named); diff != "" {
		t.Errorf("chunk at %d: hash parts (-bytes +manifest):\n%s", c.Offset, diff)
	}
}

func TestBuildEqualsReference(t *testing.T) {
	alphabet := "0123456789abcdfghijklmnpqrsvwxyz"
	tests := []struct {
		name string
		nar  []byte
	}{
		{"a byte above implicit", random(1, chunk.ImplicitSize+1)},
		{"random", random(2, 2<<20)},
		{"zeros", make([]byte, 1<<20+5)},
		{"one byte over and over", bytes.Repeat([]byte{'/'}, 700_000)},
		{"dashes", bytes.Repeat([]byte{'-'}, 300_000)},
		{"alphabet only", bytes.Repeat([]byte(alphabet), 20_000)},
		{"sparse runs", withRuns(3, 1, 1<<20, 5000)},
		{"dense runs", withRuns(4, 2, 1<<20, 100)},
		{"runs only", withRuns(5, 3, 1<<20, 34)},
		{"one run only", bytes.Repeat([]byte(runText(6, 0)), 40_000)},
		{"runs at a distance of 33", withRuns(5, 3, 300_000, 33)},
		{"31 characters", bytes.Repeat([]byte("/"+alphabet[:31]+"-"), 10_000)},
		{"33 characters", bytes.Repeat([]byte("/"+alphabet+"0-"), 10_000)},
		{"wrong alphabet", bytes.Repeat([]byte("/"+alphabet[:31]+"e-"), 10_000)},
		{"upper case", bytes.Repeat([]byte("/"+strings.ToUpper(alphabet)+"-"), 10_000)},
		{"no dash", bytes.Repeat([]byte("/"+alphabet+"/"), 10_000)},
		{"slash inside", bytes.Repeat([]byte("/abc/"+alphabet+"-"), 10_000)},
		{"cut run at the end", append(random(7, 100_000), runText(1, 1)[:33]...)},
		{"run at the end", append(random(7, 100_000), runText(1, 1)...)},
		{"run at the start", append([]byte(runText(1, 1)), random(7, 100_000)...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, encoded := build(t, tt.nar)
			check(t, tt.nar, m, encoded)
			if diff := cmp.Diff(referenceManifest(tt.nar), m); diff != "" {
				t.Errorf("(-reference +built):\n%.4000s", diff)
			}
		})
	}
}

// A boundary at every place relative to a run: zeros are cut at MaxSize only.
func TestBoundaryInsideRun(t *testing.T) {
	run := runText(1, 1)
	for shift := -1; shift <= len(run)+1; shift++ {
		nar := make([]byte, 2*chunk.MaxSize+100)
		at := chunk.MaxSize - shift
		copy(nar[at:], run)
		want := chunk.MaxSize
		if shift > 0 && shift < len(run) {
			want = at + len(run)
		}
		m, encoded := build(t, nar)
		check(t, nar, m, encoded)
		if got := m.Chunks[0].Length; got != want {
			t.Errorf("run at %d: first chunk has %d bytes, want %d", at, got, want)
		}
	}
}

// Buffers end in chunks and in runs, and reads are short.
func TestBuildStreams(t *testing.T) {
	for _, size := range []int{1<<20 - 1, 1 << 20, 1<<20 + 1, 1<<20 + 33, 1<<20 + chunk.MaxSize, 2 << 20} {
		nar := withRuns(9, 9, size, 777)
		want := referenceManifest(nar)
		got, err := chunk.Build(t.Context(), iotest.HalfReader(bytes.NewReader(nar)), want.NARHash, want.NARSize, drop)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%d bytes (-reference +built):\n%.4000s", size, diff)
		}
	}
}

func drop([]byte) error { return nil }

func TestTooManyRunsAreLeftUnmasked(t *testing.T) {
	// Chunks of runs alone hold more than 1,024 from 34 KiB on.
	nar := bytes.Repeat([]byte(runText(1, 1)), 1<<20/34)
	m, encoded := build(t, nar)
	check(t, nar, m, encoded)
	for _, c := range m.Chunks {
		if runs := c.Length / 34; c.Masked != (runs <= 1024) {
			t.Errorf("chunk of %d runs: masked is %t", runs, c.Masked)
		}
	}
}

func TestBudgetLeavesChunksUnmasked(t *testing.T) {
	// A distinct run every 80 bytes needs more than a 256th of the bytes.
	nar := withRuns(1, 1, 4<<20, 80)
	m, encoded := build(t, nar)
	check(t, nar, m, encoded)
	masked, within := 0, 0
	for _, c := range m.Chunks {
		if c.Masked {
			masked++
		}
		if c.Length/80 < 1000 {
			within++
		}
	}
	if masked == 0 || masked >= within {
		t.Errorf("%d of %d chunks with few enough runs are masked: the budget had no effect", masked, within)
	}
	if limit := chunk.MaxEncodedSize(m.NARSize); int64(len(encoded)) < limit*9/10 {
		t.Errorf("encoding of %d bytes does not come near its limit %d", len(encoded), limit)
	}
}

// What makes a mass rebuild cheap.
func TestMassRebuildKeepsBoundariesAndMaskedSums(t *testing.T) {
	before, _ := build(t, withRuns(1, 1, 4<<20, 3000))
	after, _ := build(t, withRuns(1, 2, 4<<20, 3000))
	if len(before.Chunks) != len(after.Chunks) {
		t.Fatalf("%d chunks became %d", len(before.Chunks), len(after.Chunks))
	}
	for i, b := range before.Chunks {
		a := after.Chunks[i]
		if !b.Masked || b.Sum == a.Sum || b.Length != a.Length || b.MaskedSum != a.MaskedSum {
			t.Errorf("chunk %d: before %+v, after %+v", i, b, a)
		}
	}
}

func TestChunkingFindsItsWayBack(t *testing.T) {
	content := random(1, 8<<20)
	before, _ := build(t, content)
	after, _ := build(t, append([]byte("some bytes more"), content...))
	sums := make(map[chunk.Sum]bool)
	for _, c := range before.Chunks {
		sums[c.Sum] = true
	}
	kept := 0
	for _, c := range after.Chunks {
		if sums[c.Sum] {
			kept++
		}
	}
	if kept < len(after.Chunks)*9/10 {
		t.Errorf("an insertion at the start keeps %d of %d chunks", kept, len(after.Chunks))
	}
}

func TestGenuineNARs(t *testing.T) {
	names, err := fs.Glob(cachetest.FS, "nar/*.nar")
	if err != nil || len(names) != 30 {
		t.Fatalf("%d NARs, want 30 (%v)", len(names), err)
	}
	for _, name := range names {
		nar, err := cachetest.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m, encoded := build(t, nar)
		check(t, nar, m, encoded)
		if len(nar) <= chunk.ImplicitSize {
			continue
		}
		if diff := cmp.Diff(referenceManifest(nar), m); diff != "" {
			t.Errorf("%s (-reference +built):\n%.4000s", name, diff)
		}
	}
}

func TestImplicit(t *testing.T) {
	for _, size := range []int{1, 100, chunk.ImplicitSize} {
		nar := random(1, size)
		m, encoded := build(t, nar)
		want := &chunk.Manifest{
			NARHash: sha256.Sum256(nar),
			NARSize: int64(size),
			Chunks:  []chunk.Chunk{{Length: size, Sum: sha256.Sum256(nar)}},
		}
		if diff := cmp.Diff(want, m); diff != "" || len(encoded) > 0 {
			t.Errorf("%d bytes: encoding of %d bytes, (-want +got):\n%s", size, len(encoded), diff)
		}
		check(t, nar, m, encoded)
	}
}

func TestBuildCorrupt(t *testing.T) {
	nar := random(1, 2<<20)
	hash := nix.NARHash(sha256.Sum256(nar))
	size := int64(len(nar))
	flipped := bytes.Clone(nar)
	flipped[len(nar)-1] ^= 1
	small := nar[:100]
	tests := []struct {
		name string
		r    io.Reader
		size int64
	}{
		{"flipped bit", bytes.NewReader(flipped), size},
		{"short", bytes.NewReader(nar[:size-1]), size},
		{"empty", strings.NewReader(""), size},
		{"cut at a buffer's end", bytes.NewReader(nar[:1<<20]), size},
		{"long", io.MultiReader(bytes.NewReader(nar), strings.NewReader("x")), size},
		{"small", bytes.NewReader(small), int64(len(small))},
	}
	for _, tt := range tests {
		if _, err := chunk.Build(t.Context(), tt.r, hash, tt.size, drop); !errors.Is(err, chunk.ErrCorrupt) {
			t.Errorf("%s: Build = %v, want ErrCorrupt", tt.name, err)
		}
	}
}

func TestBuildFails(t *testing.T) {
	nar := random(1, 2<<20)
	hash := nix.NARHash(sha256.Sum256(nar))
	size := int64(len(nar))
	broken := errors.New("broken")
	tests := []struct {
		name string
		r    io.Reader
		size int64
		emit error
		want error // nil: any
	}{
		{"reader", io.MultiReader(bytes.NewReader(nar[:size-5]), iotest.ErrReader(broken)), size, nil, broken},
		{"reader at the end", io.MultiReader(bytes.NewReader(nar), iotest.ErrReader(broken)), size, nil, broken},
		{"emit", bytes.NewReader(nar), size, broken, broken},
		{"no size", bytes.NewReader(nar), 0, nil, nil},
		{"too large", bytes.NewReader(nar), chunk.MaxNARSize + 1, nil, nil},
	}
	for _, tt := range tests {
		_, err := chunk.Build(t.Context(), tt.r, hash, tt.size, func([]byte) error { return tt.emit })
		if err == nil || errors.Is(err, chunk.ErrCorrupt) || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: Build = %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestBuildCancelled(t *testing.T) {
	nar := random(1, 8<<20)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := chunk.Build(ctx, bytes.NewReader(nar), sha256.Sum256(nar), int64(len(nar)), func([]byte) error {
		cancel() // in the middle
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Build = %v", err)
	}
}

func TestPiecesComeWhileReading(t *testing.T) {
	nar := random(1, 4<<20)
	r, w := io.Pipe()
	first := make(chan struct{})
	go func() {
		w.Write(nar[:len(nar)-1])
		<-first // or it hangs: no piece came before the last byte
		w.Write(nar[len(nar)-1:])
		w.Close()
	}()
	pieces := 0
	_, err := chunk.Build(t.Context(), r, sha256.Sum256(nar), int64(len(nar)), func([]byte) error {
		if pieces++; pieces == 1 {
			close(first)
		}
		return nil
	})
	if err != nil || pieces < 3 {
		t.Errorf("%d pieces, %v", pieces, err)
	}
}

func FuzzBuild(f *testing.F) {
	f.Add([]byte(runText(1, 1)), uint32(20_000), byte(0))
	f.Add([]byte("/"+strings.Repeat("0", 32)), uint32(chunk.MaxSize-7), byte(1))
	f.Add([]byte(runText(1, 1)+runText(1, 2)), uint32(0), byte(12))
	f.Fuzz(func(t *testing.T, piece []byte, at uint32, times byte) {
		// The piece stands at a place in zeros, which are cut at MaxSize only, and
		// again every 40,000 bytes.
		nar := make([]byte, chunk.ImplicitSize+1+int(at%(512<<10)))
		for i := range int(times) + 1 {
			if from := int(at) + i*40_000; from < len(nar) {
				copy(nar[from:], piece)
			}
		}
		nar = append(nar, piece...)
		m, encoded := build(t, nar)
		check(t, nar, m, encoded)
	})
}

func BenchmarkBuild(b *testing.B) {
	for _, bb := range []struct {
		name string
		nar  []byte
	}{
		{"random", random(1, 64<<20)},
		{"runs every 4 KiB", withRuns(1, 1, 64<<20, 4<<10)},
		{"runs every 128 KiB", withRuns(1, 1, 64<<20, 128<<10)},
	} {
		hash := nix.NARHash(sha256.Sum256(bb.nar))
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.nar)))
			for b.Loop() {
				if _, err := chunk.Build(b.Context(), bytes.NewReader(bb.nar), hash, int64(len(bb.nar)), drop); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("sha-256 alone", func(b *testing.B) {
		nar := random(1, 64<<20)
		b.SetBytes(int64(len(nar)))
		for b.Loop() {
			sha256.Sum256(nar)
		}
	})
}
