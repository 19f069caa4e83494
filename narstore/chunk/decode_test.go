package chunk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// parts are the pieces of an encoding, for tests that spoil one of them.
type encodingParts struct {
	header  []byte
	entries [][]byte
}

func (p encodingParts) join() []byte {
	return append(bytes.Clone(p.header), slices.Concat(p.entries...)...)
}

// threeChunks returns the encoding of a manifest of three chunks: masked with
// two runs of the same and one of another hash part, plain, masked with one run.
func threeChunks() (parts encodingParts, hash nix.NARHash, size int64) {
	hash = sha256.Sum256([]byte("some NAR"))
	lengths := []int{20_000, 30_000, 400}
	for _, n := range lengths {
		size += int64(n)
	}
	sum := bytes.Repeat([]byte{7}, 32)
	entry := func(length int, fields ...[]byte) []byte {
		return append(binary.AppendUvarint(nil, uint64(length)), slices.Concat(append([][]byte{sum}, fields...)...)...)
	}
	part := func(b byte) []byte { return bytes.Repeat([]byte{b}, 20) }
	parts.header = slices.Concat([]byte("nar-p2p\x01"), binary.BigEndian.AppendUint64(nil, uint64(size)), hash[:])
	parts.entries = [][]byte{
		entry(lengths[0], []byte{3}, sum, []byte{0}, part('a'), []byte{0}, []byte{1}, part('b')),
		entry(lengths[1], []byte{0}),
		entry(lengths[2], []byte{1}, sum, []byte{1}),
	}
	return parts, hash, size
}

func TestDecode(t *testing.T) {
	parts, hash, size := threeChunks()
	got, err := chunk.Decode(parts.join(), hash, size)
	if err != nil {
		t.Fatal(err)
	}
	sum := chunk.Sum(bytes.Repeat([]byte{7}, 32))
	want := &chunk.Manifest{
		NARHash:   hash,
		NARSize:   size,
		HashParts: []nix.HashPart{nix.HashPart(bytes.Repeat([]byte{'a'}, 20)), nix.HashPart(bytes.Repeat([]byte{'b'}, 20))},
		Chunks: []chunk.Chunk{
			{Offset: 0, Length: 20_000, Sum: sum, Masked: true, MaskedSum: sum, Runs: []uint32{0, 0, 1}},
			{Offset: 20_000, Length: 30_000, Sum: sum},
			{Offset: 50_000, Length: 400, Sum: sum, Masked: true, MaskedSum: sum, Runs: []uint32{1}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !bytes.Equal(got.Encode(), parts.join()) {
		t.Error("encodes to other bytes")
	}
}

func TestDecodeRefuses(t *testing.T) {
	const first, plain, last = 0, 1, 2 // entries
	replace := func(entry int, at int, old, replacement []byte) func(*encodingParts) {
		return func(p *encodingParts) {
			e := p.entries[entry]
			if !bytes.HasPrefix(e[at:], old) {
				panic("the test's offsets are wrong")
			}
			p.entries[entry] = slices.Concat(e[:at], replacement, e[at+len(old):])
		}
	}
	length := func(n uint64) []byte { return binary.AppendUvarint(nil, n) }
	tests := []struct {
		name  string
		spoil func(*encodingParts)
	}{
		{"nothing", func(p *encodingParts) { p.header, p.entries = nil, nil }},
		{"magic", func(p *encodingParts) { p.header[0] ^= 1 }},
		{"version", func(p *encodingParts) { p.header[7]++ }},
		{"another size", func(p *encodingParts) { p.header[15]++ }},
		{"another hash", func(p *encodingParts) { p.header[47]++ }},
		{"no entries", func(p *encodingParts) { p.entries = nil }},
		{"missing entry", func(p *encodingParts) { p.entries = p.entries[:2] }},
		{"cut entry", func(p *encodingParts) { p.entries[last] = p.entries[last][:60] }},
		{"trailing zero", func(p *encodingParts) { p.entries = append(p.entries, []byte{0}) }},
		{"trailing unfinished varint", func(p *encodingParts) { p.entries = append(p.entries, []byte{0x80}) }},
		{"entry too many", func(p *encodingParts) { p.entries = append(p.entries, p.entries[plain]) }},
		{"length zero", replace(first, 0, length(20_000), length(0))},
		{"length below minimum", replace(first, 0, length(20_000), length(chunk.MinSize-1))},
		{"length above maximum", replace(first, 0, length(20_000), length(chunk.MaxLength+1))},
		{"length above the rest", replace(last, 0, length(400), length(401))},
		{"length not minimal", replace(last, 0, length(400), []byte{0x90, 0x83, 0})},
		{"length of five bytes", replace(last, 0, length(400), []byte{0x90, 0x83, 0x80, 0x80, 0})},
		{"run count not minimal", replace(plain, 35, []byte{0}, []byte{0x80, 0})},
		{"run count above 1,024", replace(first, 35, []byte{3}, length(1025))},
		{"more runs than fit", replace(last, 34, []byte{1}, length(400/34+1))},
		{"index above the table", replace(first, 68, []byte{0}, []byte{1})},
		{"index not minimal", replace(last, 67, []byte{1}, []byte{0x81, 0})},
		{"hash part twice", replace(first, 91, bytes.Repeat([]byte{'b'}, 20), bytes.Repeat([]byte{'a'}, 20))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parts, hash, size := threeChunks()
			tt.spoil(&parts)
			if m, err := chunk.Decode(parts.join(), hash, size); err == nil {
				t.Errorf("accepted: %+v", m)
			}
		})
	}
}

func TestDecodeRefusesSizes(t *testing.T) {
	for _, size := range []int64{-1, 0, chunk.MaxNARSize + 1} {
		if _, err := chunk.Decode(nil, nix.NARHash{}, size); err == nil {
			t.Errorf("a NAR of %d bytes is accepted", size)
		}
	}
}

func TestDecodeImplicit(t *testing.T) {
	hash := nix.NARHash(sha256.Sum256([]byte("x")))
	m, err := chunk.Decode(nil, hash, 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]chunk.Chunk{{Length: 1, Sum: chunk.Sum(hash)}}, m.Chunks); diff != "" {
		t.Error(diff)
	}
	if _, err := chunk.Decode([]byte{0}, hash, 1); err == nil {
		t.Error("an implied manifest has no bytes")
	}
}

func TestDecodeRefusesOnlyChunkOfAnotherNAR(t *testing.T) {
	nar := random(1, chunk.ImplicitSize+1)
	_, encoded := build(t, nar)
	encoded[60] ^= 1 // in the only entry's sum
	if _, err := chunk.Decode(encoded, sha256.Sum256(nar), int64(len(nar))); err == nil {
		t.Error("accepted")
	}
}

// Masked fields that honest nodes leave out are refused, so that the limit for
// the whole holds.
func TestDecodeRefusesMoreThanTheBudget(t *testing.T) {
	const count, length = 481, chunk.MinSize // as many runs as fit
	size := int64(64 * length)
	hash := nix.NARHash{1}
	m := &chunk.Manifest{NARHash: hash, NARSize: size}
	for offset := int64(0); offset < size; offset += length {
		c := chunk.Chunk{Offset: offset, Length: length, Masked: true}
		for range count {
			index := len(m.HashParts)
			var part nix.HashPart
			binary.BigEndian.PutUint32(part[:], uint32(index))
			m.HashParts = append(m.HashParts, part)
			c.Runs = append(c.Runs, uint32(index))
		}
		m.Chunks = append(m.Chunks, c)
	}
	encoded := m.Encode()
	d := chunk.NewDecoder(hash, size)
	n, err := d.Write(encoded)
	if err == nil {
		t.Fatal("accepted")
	}
	if limit := chunk.MaxEncodedSize(size); int64(n) > limit+1024*24 {
		t.Errorf("read %d bytes of %d, limit %d", n, len(encoded), limit)
	}
	if got := len(d.Chunks()); got != 6 {
		t.Errorf("%d chunks were accepted, want the 6 that fit 64 KiB", got)
	}
}

func TestDecoderTellsChunksAsTheyCome(t *testing.T) {
	parts, hash, size := threeChunks()
	d := chunk.NewDecoder(hash, size)
	write := func(b []byte, want int) {
		t.Helper()
		if n, err := d.Write(b); n != len(b) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		if got := len(d.Chunks()); got != want {
			t.Fatalf("%d chunks, want %d", got, want)
		}
	}
	write(parts.header, 0)
	write(parts.entries[0], 1)
	write(parts.entries[1][:35], 1)
	if _, err := d.Finish(); err == nil {
		t.Error("finished early")
	}
	write(parts.entries[1][35:], 2)
	write(nil, 2)
	write(parts.entries[2], 3)
	if _, err := d.Finish(); err != nil {
		t.Error(err)
	}
	if _, err := d.Write([]byte{1}); err == nil {
		t.Error("more was accepted")
	}
	if _, err := d.Finish(); err == nil {
		t.Error("an error is not for ever")
	}
}

func FuzzDecode(f *testing.F) {
	parts, _, _ := threeChunks()
	f.Add(parts.join(), uint64(1))
	nar := withRuns(1, 1, 200_000, 2000)
	encoded := referenceManifest(nar).Encode()
	f.Add(encoded, uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if len(b) < 48 {
			return
		}
		// What the header says is what is wanted, or nothing were ever accepted.
		size := int64(binary.BigEndian.Uint64(b[8:]))
		hash := nix.NARHash(b[16:48])
		m, err := chunk.Decode(b, hash, size)
		if err == nil && size > chunk.ImplicitSize {
			if !bytes.Equal(m.Encode(), b) {
				t.Error("accepted, but encodes to other bytes")
			}
			if int64(len(b)) > chunk.MaxEncodedSize(size) {
				t.Errorf("%d bytes are accepted, limit %d", len(b), chunk.MaxEncodedSize(size))
			}
		}
		inPieces, pieceErr := decodeInPieces(b, hash, size, rand.New(rand.NewPCG(seed, 0)))
		if (err == nil) != (pieceErr == nil) || err != nil && err.Error() != pieceErr.Error() {
			t.Errorf("whole: %v, in pieces: %v", err, pieceErr)
		}
		if diff := cmp.Diff(m, inPieces); diff != "" {
			t.Errorf("(-whole +pieces):\n%s", diff)
		}
	})
}

func decodeInPieces(b []byte, hash nix.NARHash, size int64, r *rand.Rand) (*chunk.Manifest, error) {
	d := chunk.NewDecoder(hash, size)
	for len(b) > 0 {
		n := 1 + r.IntN(min(len(b), 100))
		if _, err := d.Write(b[:n]); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	return d.Finish()
}
