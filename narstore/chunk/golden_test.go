package chunk_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// The vectors of docs/protocol.md. They are frozen with the wire protocol: a
// change here is a new version of the manifest.

// content is the sha-256 of "block 0", of "block 1" and so on, cut to n bytes.
func content(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "block %d", i))
		b = append(b, sum[:]...)
	}
	return b[:n]
}

// contentWithRuns is content with a run of its own every distance bytes.
func contentWithRuns(n, distance int) []byte {
	nar := content(n)
	for i, at := 0, 0; at+34 <= n; i, at = i+1, at+distance {
		sum := sha256.Sum256(fmt.Appendf(nil, "part %d", i))
		copy(nar[at:], "/"+nix.EncodeBase32(sum[:20])+"-")
	}
	return nar
}

func TestGoldenExample(t *testing.T) {
	nar := content(200_000)
	copy(nar[1_000:], "/0123456789abcdfghijklmnpqrsvwxyz-")
	copy(nar[90_000:], "/zyxwvsrqpnmlkjihgfdcba9876543210-")
	copy(nar[150_000:], "/0123456789abcdfghijklmnpqrsvwxyz-")
	want := []string{
		"6e61722d70327001", // magic and version
		"0000000000030d40", // 200,000 bytes
		"f55d44f62af23cfc760e98dab3f6cdabda8e247809e6cd0b06ac048d6954bc12",

		"fe9e06", // 102,270 bytes
		"cedd5c308be0e543b2393ec2df5613dca2152860dbb45b50a819c66db6ed3614",
		"02", // runs
		"a7f20c4f69c9e20a4a26e8373c6949299552dc92d9a7f433c08068940a6564a5",
		"00", "df77be75c6d7563a6584cf35b65442c714324400",
		"01", "2088418a3928a9c59a7b30ca49abbd38ebcdbbff",

		"d68304", // 66,006 bytes
		"1d98c561f1baec3215653c2962d31e41d09e8c602b953afb011ab6c02ed20af0",
		"01", // run
		"0e95dfe78ab10c26a19b3e6855a40632e19f8ab3e3e45e26fedb162ed81fa866",
		"00",

		"ecf701", // 31,724 bytes
		"052d3a1c4db7e507d04dcd6b3619d2945a439fac9b324791b07f804197d8647e",
		"00", // runs
	}
	const root = "bd00e7ec87bff4d5fd8c1c8fce6fbca4456fe9676aac14035232464713aa0d6e"
	m, encoded := build(t, nar)
	rest := hex.EncodeToString(encoded)
	var got []string
	for _, field := range want {
		n := min(len(field), len(rest))
		got = append(got, rest[:n])
		rest = rest[n:]
	}
	if diff := cmp.Diff(want, slices.DeleteFunc(append(got, rest), func(s string) bool { return s == "" })); diff != "" {
		t.Errorf("encoding (-want +got):\n%s", diff)
	}
	if m.Root().String() != root {
		t.Errorf("root = %s, want %s", m.Root(), root)
	}
}

func TestGoldenRoots(t *testing.T) {
	tests := []struct {
		name   string
		nar    []byte
		chunks int
		root   string
	}{
		{"one chunk", content(16_385), 1, "26b4287d2a95c55d15831594c24464031f40ba2c140037f6ac15e65525f8da5e"},
		{"many chunks", content(10_000_000), 130, "f2d2efbc8bc6ef862eb97c92aef3a2517537fa2494a574f161321797d2bcaca9"},
		{"longest chunks", make([]byte, 1_000_000), 4, "02580f5d9a343162f4f254f7c5b617c72f4b3de18297cae3d140ab0dbfe8e5ad"},
		{"budget", contentWithRuns(4_000_000, 700), 50, "c0412314cff4eb7adbdf2ba9895570af19004d740ed03e9750a24f47a971e97c"},
		{"many runs", contentWithRuns(4_000_000, 80), 52, "fc189a9176cda950644bd07ed15d64c129331a9b7c6276239176e29f765e2490"},
	}
	for _, tt := range tests {
		m, _ := build(t, tt.nar)
		if len(m.Chunks) != tt.chunks || m.Root().String() != tt.root {
			t.Errorf("%s: %d chunks, root %s, want %d, %s", tt.name, len(m.Chunks), m.Root(), tt.chunks, tt.root)
		}
	}
	// The vectors show what their names say.
	for name, tt := range map[string]struct {
		nar  []byte
		left func(c chunk.Chunk) bool
	}{
		"budget":    {contentWithRuns(4_000_000, 700), func(c chunk.Chunk) bool { return !c.Masked && c.Length/700 < 1000 }},
		"many runs": {contentWithRuns(4_000_000, 80), func(c chunk.Chunk) bool { return !c.Masked && c.Length/80 > 1024 }},
	} {
		m, _ := build(t, tt.nar)
		if !slices.ContainsFunc(m.Chunks, tt.left) {
			t.Errorf("%s: nothing is left unmasked", name)
		}
	}
}
