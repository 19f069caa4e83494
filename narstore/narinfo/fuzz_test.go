package narinfo_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	oracle "github.com/nix-community/go-nix/pkg/narinfo"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

func FuzzParse(f *testing.F) {
	for _, text := range genuine(f) {
		if len(text) < 4096 { // the larger ones only slow the fuzzer down
			f.Add([]byte(text))
		}
	}
	key := mustKey(f, cachetest.Key)
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := narinfo.Parse(data)
		if err != nil {
			return
		}
		written := info.Bytes()
		again, err := narinfo.Parse(written)
		if err != nil {
			t.Fatalf("Parse refuses what Bytes wrote: %v\n%s", err, written)
		}
		info.Malformed = 0
		if diff := cmp.Diff(info, again, byValue); diff != "" {
			t.Fatalf("Bytes changes the record (-before +after):\n%s", diff)
		}
		if again := again.Bytes(); !bytes.Equal(again, written) {
			t.Fatalf("Bytes is not stable:\n%s\n%s", written, again)
		}
		compareWithOracle(t, info, written)

		// Nobody can edit what is signed.
		if len(info.SignedBy([]narinfo.PublicKey{key})) > 0 {
			signed, err := narinfo.Parse([]byte(record(t, info.StorePath.HashPart().String())))
			if err != nil || signed.Fingerprint() != info.Fingerprint() {
				t.Fatalf("signature holds for %s", info.Fingerprint())
			}
		}
	})
}

// compareWithOracle reads what Bytes wrote with go-nix. Its parser is not asked
// about the input itself: it does not know unknown keys, and it lets through
// most of what Nix refuses.
func compareWithOracle(t *testing.T, info *narinfo.Info, written []byte) {
	t.Helper()
	for line := range strings.Lines(string(written)) {
		// go-nix wants exactly one separator in a line of less than 1 MiB, a
		// hash that it knows, and a number of 64 bits.
		if strings.Count(line, ": ") != 1 || len(line) > 1<<19 || strings.HasPrefix(line, "FileHash") || strings.HasPrefix(line, "FileSize") {
			return
		}
	}
	theirs, err := oracle.Parse(bytes.NewReader(written))
	if err != nil {
		t.Fatalf("go-nix refuses what Bytes wrote: %v\n%s", err, written)
	}
	type fields struct {
		StorePath, URL, Compression, NARHash, Deriver, CA string
		NARSize                                           uint64
		References, Signatures                            []string
	}
	want := fields{
		StorePath: theirs.StorePath, URL: theirs.URL, Compression: theirs.Compression, NARHash: theirs.NarHash.String(),
		Deriver: theirs.Deriver, CA: theirs.CA, NARSize: theirs.NarSize, References: theirs.References,
	}
	got := fields{
		StorePath: info.StorePath.String(), URL: info.URL, Compression: info.Compression, NARHash: info.NARHash.String(),
		Deriver: info.Deriver.BaseName(), CA: info.CA, NARSize: uint64(info.NARSize),
	}
	for _, r := range info.References {
		got.References = append(got.References, r.BaseName())
	}
	for _, s := range theirs.Signatures {
		want.Signatures = append(want.Signatures, s.String())
	}
	for _, s := range info.Signatures {
		got.Signatures = append(got.Signatures, s.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("fields (-go-nix +narinfo):\n%s", diff)
	}
	// go-nix signs references as they stand.
	canonical := slices.Compact(slices.SortedFunc(slices.Values(info.References), nix.StorePath.Compare))
	if slices.Equal(canonical, info.References) && info.Fingerprint() != theirs.Fingerprint() {
		t.Fatalf("Fingerprint() = %s, want %s", info.Fingerprint(), theirs.Fingerprint())
	}
}
