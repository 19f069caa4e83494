package narinfo_test

import (
	"crypto/sha256"
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// byValue lets cmp compare store paths.
var byValue = cmp.Comparer(func(a, b nix.StorePath) bool { return a == b })

func mustKey(tb testing.TB, text string) narinfo.PublicKey {
	tb.Helper()
	k, err := narinfo.ParsePublicKey(text)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// genuine returns the text of all genuine records by hash part.
func genuine(tb testing.TB) map[string]string {
	tb.Helper()
	entries, err := fs.ReadDir(cachetest.FS, "narinfo")
	if err != nil {
		tb.Fatal(err)
	}
	records := make(map[string]string, len(entries))
	for _, e := range entries {
		records[strings.TrimSuffix(e.Name(), ".narinfo")] = record(tb, strings.TrimSuffix(e.Name(), ".narinfo"))
	}
	return records
}

func record(tb testing.TB, part string) string {
	tb.Helper()
	b, err := fs.ReadFile(cachetest.FS, path.Join("narinfo", part+".narinfo"))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func TestGenuineRecords(t *testing.T) {
	key := mustKey(t, cachetest.Key)
	records := genuine(t)
	if len(records) != 200 {
		t.Fatalf("%d records, want 200", len(records))
	}
	for part, text := range records {
		t.Run(part, func(t *testing.T) {
			info, err := narinfo.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if got := info.StorePath.HashPart().String(); got != part {
				t.Errorf("hash part is %s", got)
			}
			if got := info.SignedBy([]narinfo.PublicKey{key}); len(got) != 1 || got[0] != key {
				t.Errorf("SignedBy = %v, want the key of cache.nixos.org", got)
			}

			again, err := narinfo.Parse(info.Bytes())
			if err != nil {
				t.Fatalf("as rewritten: %v", err)
			}
			if diff := cmp.Diff(info, again, byValue); diff != "" {
				t.Errorf("rewriting changed it (-before +after):\n%s", diff)
			}

			served := *info
			served.URL = narinfo.NARURL(info.StorePath.HashPart(), info.NARHash)
			served.Compression, served.FileHash, served.FileSize = "none", info.NARHash.String(), info.NARSize
			again, err = narinfo.Parse(served.Bytes())
			if err != nil {
				t.Fatalf("as a node serves it: %v", err)
			}
			if len(again.SignedBy([]narinfo.PublicKey{key})) != 1 {
				t.Error("the signature is lost on the way to Nix")
			}
			gotPart, gotHash, err := narinfo.ParseNARURL(again.URL)
			if err != nil || gotPart != info.StorePath.HashPart() || gotHash != info.NARHash {
				t.Errorf("ParseNARURL(%q) = %s, %s, %v", again.URL, gotPart, gotHash, err)
			}
		})
	}
}

func TestGenuineNARs(t *testing.T) {
	entries, err := fs.ReadDir(cachetest.FS, "nar")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 30 {
		t.Fatalf("%d NARs, want 30", len(entries))
	}
	for _, e := range entries {
		nar, err := fs.ReadFile(cachetest.FS, path.Join("nar", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		info, err := narinfo.Parse([]byte(record(t, strings.TrimSuffix(e.Name(), ".nar"))))
		if err != nil {
			t.Fatal(err)
		}
		if got := nix.NARHash(sha256.Sum256(nar)); got != info.NARHash || int64(len(nar)) != info.NARSize {
			t.Errorf("%s: %d bytes with hash %s; signed: %d bytes, %s", e.Name(), len(nar), got, info.NARSize, info.NARHash)
		}
	}
}

// Content addresses are not signed, but those of the genuine records are right.
func TestGenuineContentAddresses(t *testing.T) {
	n := 0
	for _, text := range genuine(t) {
		info, err := narinfo.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if info.CA == "" {
			continue
		}
		n++
		ca, err := nix.ParseContentAddress(info.CA)
		if err != nil || !ca.Yields(info.StorePath, info.References) {
			t.Errorf("%s does not yield %s (%v)", info.CA, info.StorePath, err)
		}
		if hash, ok := ca.NARHash(); ok && hash != info.NARHash {
			t.Errorf("%s: NAR hash is %s", info.CA, info.NARHash)
		}
	}
	if n != 6 {
		t.Errorf("%d content addresses, want 6", n)
	}
}
