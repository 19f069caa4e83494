package verify_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/address"
	archive "github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

const (
	selfPart = "rkyxbghdk5r8fmraxsiwrrq4v0bfkswn"
	selfText = "one /nix/store/" + selfPart + "-selfish two " + selfPart + " three\n"
)

const (
	laterPart = "ckx8m7bfwjv5hpj55v6zwl916a8xjixs"
	laterText = "one /nix/store/" + laterPart + "-selfish two " + laterPart + " three\n"
)

// addressed is what Nix made of single files: 2.8 with `nix-store --add-fixed`
// and `nix store make-content-addressed`, 2.34 those with BLAKE3 and the last
// but one.
var addressed = []struct{ path, ca, contents string }{
	{"ikmga64qpzvk2by7pnl9xh10c2frq7p8-file-md5", "fixed:md5:32xca3ash94rhsb6mm3k71y2j6", "contents of a file\n"},
	{"1vxlylzdjsqiwjap6sswkbijjs8qpqd7-file-sha1", "fixed:sha1:08c75bj0b3ldwwf7iqphfy5ss16hkf3j", "contents of a file\n"},
	{"3yq6wg3vzcxhx7vzig567nh6nfqbs8a0-file-sha256", "fixed:sha256:19lc8y1f2is2vvb7hhycnfbb25z3ir01vfbyrwh4k6xv8j6yqv93", "contents of a file\n"},
	{"xs2kx7zaf3jll56q9pbyj6kcc300wx3y-file-sha512", "fixed:sha512:033ichg5260y41y09bvq2l1nwqmqva8d6bxbm6zgxfcqmcm99my2i7lqkx4v7qh1crj5r0mplmx0ciqy6yn3fg3mkmjbyzmaxlx809m", "contents of a file\n"},
	{"jv8cphrgi03ypr3i4afwhdpalk2f42kd-file-blake3", "fixed:blake3:1h04wr3m4xdkz37c72drpgdvxwmhchlw356igsy1p2vkdwr5f4bz", "contents of a file\n"},
	{"qqw8d62w8s5b7w1hqr5f5j48ja04krhj-tree-md5", "fixed:r:md5:1h086nlymbhf6ljgkgb6jfyhc3", "contents of a file\n"},
	{"9il5mykjyzmbrn58pszbxvwyhij8b4g1-tree-sha1", "fixed:r:sha1:vz35gji3k0d78h7h3cnghary8aiyjy37", "contents of a file\n"},
	{"cjd9gfknsc7gsh74437ja3sxzfrxcphg-tree-sha512", "fixed:r:sha512:39zir8nspv922ikzd4r5yfyqb24q4732s41hlj8a7maph3givgf0g0nl0smmy98rrai9y7mngl7xs1znzcnsznp3af8zm5fvy7jx6b3", "contents of a file\n"},
	{"j0rj9z1xx6nyj1xaa3mysmdgxgbrdhbr-tree-blake3", "fixed:r:blake3:1a7340c46pyhyzlg08xd76xk7wq8qxasicwj3wr69ifpm3y189l5", "contents of a file\n"},
	{"5ihpkyb3gphc9sxqd4v7kp7gv8k15jh6-text", "text:sha256:198qqib1c9bb73dqfsbdsvn0143f4arkxfd1094yskys4hpx8sr2", "contents of a text\n"},
	{laterPart + "-selfish", "fixed:r:sha256:0mmdymhwgb5gym6xkqz6azv2my0hfazw84wi9ilnr249f0g34k3z", laterText},
	{selfPart + "-selfish", "fixed:r:sha256:03dfc8gf06gxyscyx3k14mql95jr0frw317r80gxd8b58fi6zi46", selfText},
}

func file(contents string) []byte {
	before, behind := archive.AroundFile(int64(len(contents)))
	return bytes.Join([][]byte{before, []byte(contents), behind}, nil)
}

// record says of these very bytes that they are the NAR of the path, as a cache
// that lies consistently does.
func record(t *testing.T, path, ca string, bytes []byte) *narinfo.Info {
	t.Helper()
	p, err := nix.ParseBaseName(path)
	if err != nil {
		t.Fatal(err)
	}
	info := &narinfo.Info{StorePath: p, CA: ca, NARHash: sha256.Sum256(bytes), NARSize: int64(len(bytes))}
	if strings.HasPrefix(path, selfPart) || strings.HasPrefix(path, laterPart) {
		info.References = []nix.StorePath{p}
	}
	return info
}

// pass sends the bytes through a gate in pieces of one size.
func pass(t *testing.T, info *narinfo.Info, b []byte, piece int) (got []byte, err error) {
	t.Helper()
	check, err := address.NewCheck(info)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	target := verify.Target{Hash: info.NARHash, Size: info.NARSize}
	g := verify.NewGate(&out, verify.NewDigest(target), verify.Range{From: 0, To: info.NARSize}, 16)
	g.Check(check)
	for ; len(b) > 0; b = b[min(piece, len(b)):] {
		if _, err := g.Write(b[:min(piece, len(b))]); err != nil {
			return out.Bytes(), err
		}
	}
	err = g.Finish()
	return out.Bytes(), err
}

func TestWhatNixMadeHasItsAddress(t *testing.T) {
	for _, tt := range addressed {
		b := file(tt.contents)
		for piece := 1; piece <= len(b); piece++ {
			if got, err := pass(t, record(t, tt.path, tt.ca, b), b, piece); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("%s in pieces of %d bytes: %d of %d bytes, %v", tt.ca, piece, len(got), len(b), err)
			}
		}
	}
}

// The NAR hash is that of the bytes in each case, so only the content address
// tells that they are wrong.
func TestOtherContentIsHeldBack(t *testing.T) {
	for _, tt := range addressed {
		b := file(tt.contents)
		for at := range b {
			wrong := bytes.Clone(b)
			wrong[at] ^= 1
			got, err := pass(t, record(t, tt.path, tt.ca, wrong), wrong, 7)
			if !errors.Is(err, verify.ErrAddress) || len(got) != len(b)-16 {
				t.Fatalf("%s with byte %d wrong: %d bytes of %d, %v", tt.ca, at, len(got), len(b), err)
			}
		}
		for name, wrong := range map[string][]byte{
			"longer":      append(bytes.Clone(b), make([]byte, 8)...),
			"shorter":     b[:len(b)-8],
			"cut at once": b[:8],
			"a directory": bytes.Replace(b, []byte("regular"), []byte("directo"), 1),
			"executable":  bytes.Replace(b, []byte("\x08\x00\x00\x00\x00\x00\x00\x00contents"), []byte("\x0a\x00\x00\x00\x00\x00\x00\x00executable\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00contents"), 1),
			"huge length": bytes.Replace(b, []byte("contents"), []byte("contents\xff\xff\xff\xff\xff\xff\xff\xff"), 1),
		} {
			if bytes.Equal(wrong, b) {
				t.Fatalf("%s: %s changes nothing", tt.ca, name)
			}
			if _, err := pass(t, record(t, tt.path, tt.ca, wrong), wrong, 7); !errors.Is(err, verify.ErrAddress) {
				t.Errorf("%s, %s: %v", tt.ca, name, err)
			}
		}
	}
}

// Blanked out, a reference to itself looks like the zeros that replace it. (Nix
// 2.17 to 2.34 does not tell them apart, in paths that it has made itself.)
func TestZerosAreNoSelfReference(t *testing.T) {
	last := addressed[len(addressed)-1]
	zeros := strings.Repeat("\x00", len(selfPart))
	for _, contents := range []string{
		strings.ReplaceAll(selfText, selfPart, zeros),
		strings.Replace(selfText, selfPart, zeros, 1),
	} {
		b := file(contents)
		if _, err := pass(t, record(t, last.path, last.ca, b), b, len(b)); !errors.Is(err, verify.ErrAddress) {
			t.Errorf("%q: %v", contents, err)
		}
	}
}

// The places behind an archive look like what Nix 2.17 to 2.34 hashes of a
// longer one.
func TestPlacesAreNotContents(t *testing.T) {
	last := addressed[len(addressed)-1]
	b := file(selfText)
	forged := bytes.ReplaceAll(b, []byte(selfPart), make([]byte, len(selfPart)))
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], []byte(selfPart))
		if i < 0 {
			break
		}
		at += i
		forged = fmt.Appendf(forged, "|%d", at)
	}
	info := record(t, last.path, last.ca, forged)
	if sum := nix.NARHash(sha256.Sum256(forged)); "fixed:r:"+sum.String() != last.ca {
		t.Fatalf("the forgery has the hash %s, and the address is %s", sum, last.ca)
	}
	if _, err := pass(t, info, forged, len(forged)); !errors.Is(err, verify.ErrAddress) {
		t.Errorf("a forgery is let through: %v", err)
	}
}

// moduloHash computes what Nix does, of the whole at once.
func moduloHash(b []byte, part string, places bool) [32]byte {
	sum := sha256.New()
	sum.Write(bytes.ReplaceAll(b, []byte(part), make([]byte, len(part))))
	if !places {
		return [32]byte(sum.Sum(nil))
	}
	for at := 0; ; at += len(part) {
		i := bytes.Index(b[at:], []byte(part))
		if i < 0 {
			return [32]byte(sum.Sum(nil))
		}
		at += i
		fmt.Fprintf(sum, "|%d", at)
	}
}

func FuzzSelfReferences(f *testing.F) {
	f.Add([]byte("a\x01b\x01\x01"), 3, false, true)
	f.Add([]byte("\x01\x02\x01"), 1, true, true)
	f.Add([]byte("\x01\x02\x01"), 1, true, false)
	_, behind := archive.AroundFile(0)
	f.Fuzz(func(t *testing.T, text []byte, piece int, uniform, places bool) {
		part := selfPart
		if uniform { // so that occurrences may overlap
			part = strings.Repeat("1", len(part))
		}
		b := bytes.ReplaceAll(text, []byte{1}, []byte(part))
		b = bytes.ReplaceAll(b, []byte{2}, []byte(part[1:]))
		if b = append(b, behind...); piece < 1 {
			return
		}
		want := moduloHash(b, part, places)
		info := record(t, part+"-x", "fixed:r:"+nix.NARHash(want).String(), b)
		info.References = []nix.StorePath{info.StorePath}
		if _, err := pass(t, info, b, piece); err != nil {
			t.Errorf("%q in pieces of %d: %v", b, piece, err)
		}
	})
}

// Nobody can make a node remember places without end.
func TestSelfReferencesAreBounded(t *testing.T) {
	for _, tt := range []struct {
		n    int
		want error
	}{{1 << 20, nil}, {1<<20 + 1, verify.ErrAddress}} {
		_, behind := archive.AroundFile(0)
		b := append(bytes.Repeat([]byte(selfPart), tt.n), behind...)
		info := record(t, selfPart+"-x", "fixed:r:"+nix.NARHash(moduloHash(b, selfPart, true)).String(), b)
		if _, err := pass(t, info, b, 128<<10); !errors.Is(err, tt.want) {
			t.Errorf("%d references: %v, want %v", tt.n, err, tt.want)
		}
	}
}

func TestAddressesThatAreNotChecked(t *testing.T) {
	for _, ca := range []string{"", "text:sha256:0", "fixed:git:sha1:" + strings.Repeat("0", 32)} {
		if _, err := address.NewCheck(record(t, selfPart+"-x", ca, nil)); err == nil {
			t.Errorf("there is a check for %q", ca)
		}
	}
}

// A request that resumes reads from the first byte on, and is given its range.
func TestAddressOfARange(t *testing.T) {
	last := addressed[len(addressed)-1]
	b := file(last.contents)
	info := record(t, last.path, last.ca, b)
	check, err := address.NewCheck(info)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	g := verify.NewGate(&out, verify.NewDigest(verify.Target{Hash: info.NARHash, Size: info.NARSize}), verify.Range{From: 100, To: 120}, 16)
	g.Check(check)
	if err := write(t, g, b); err != nil {
		t.Fatal(err)
	}
	if out.Len() != 4 {
		t.Errorf("%d bytes are given before all are checked, want 4", out.Len())
	}
	if err := g.Finish(); err != nil || !bytes.Equal(out.Bytes(), b[100:120]) {
		t.Errorf("%q, %v", out.Bytes(), err)
	}
}
