package trust_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
)

// byValue lets cmp compare store paths.
var byValue = cmp.Comparer(func(a, b nix.StorePath) bool { return a == b })

func secretKey(t *testing.T, name string) narinfo.SecretKey {
	t.Helper()
	k, err := narinfo.GenerateSecretKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func renamed(t *testing.T, k narinfo.SecretKey, name string) narinfo.SecretKey {
	t.Helper()
	_, data, _ := strings.Cut(k.Text(), ":")
	same, err := narinfo.ParseSecretKey(name + ":" + data)
	if err != nil {
		t.Fatal(err)
	}
	return same
}

func parse(t *testing.T, lines ...string) *narinfo.Info {
	t.Helper()
	info, err := narinfo.Parse([]byte(strings.Join(lines, "\n") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// signed returns a record with the signatures of keys.
func signed(t *testing.T, keys ...narinfo.SecretKey) *narinfo.Info {
	t.Helper()
	info := parse(t,
		"StorePath: /nix/store/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl-7.82.0-bin",
		"URL: nar/x.nar.xz",
		"Compression: xz",
		"NarHash: sha256:1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0",
		"NarSize: 196040",
		"References: 0jqd0rlxzra1rs38rdxl43yh6rxchgc6-curl-7.82.0")
	for _, k := range keys {
		info.Signatures = append(info.Signatures, k.Sign(info.Fingerprint()))
	}
	return info
}

// addressed returns an unsigned record of a tree with one reference, that
// `nix store make-content-addressed` of Nix 2.8 made.
func addressed(t *testing.T) *narinfo.Info {
	t.Helper()
	return parse(t,
		"StorePath: /nix/store/jvvss9xln7zbbidlmvvb80mhgh5wndgy-wrapper",
		"URL: nar/x.nar",
		"Compression: none",
		"NarHash: sha256-SvsOpkhShC71+KkshqDKgdxXEl6E/81biNXEd1rr5bM=",
		"NarSize: 168",
		"References: az31knmcmkcvqp327ha4d0jxlpimbbi3-dep",
		"CA: fixed:r:sha256:1cz5xdd7gi6mi1dwvzw4bq95gp41rah8cb59z3sjx12j92k0xysa")
}

// selfish is like addressed, but refers to itself.
func selfish(t *testing.T) *narinfo.Info {
	t.Helper()
	return parse(t,
		"StorePath: /nix/store/caxq71rpspidbjf3lfz2qciqyiy6rbx4-selfish",
		"URL: nar/x.nar",
		"Compression: none",
		"NarHash: sha256-TsA9bdpiDkGUNHcNp7QpFP21DrhPaJIOvGDQbDfiA7w=",
		"NarSize: 232",
		"References: caxq71rpspidbjf3lfz2qciqyiy6rbx4-selfish jvvss9xln7zbbidlmvvb80mhgh5wndgy-wrapper",
		"CA: fixed:r:sha256:1bpin3r18xbmnbcha4l9zw13nw72mwpaq9fjb9g3jhya34wnvpjp")
}

// text is an unsigned record of what builtins.toFile made.
func text(t *testing.T) *narinfo.Info {
	t.Helper()
	return parse(t,
		"StorePath: /nix/store/c61i4gz5k01hfwfm979s0m23hxb0c733-dep",
		"URL: nar/x.nar",
		"Compression: none",
		"NarHash: sha256-oYpx7olqIL6TpLxkXGgfZEX1j+jiKutzcb1w4gEsD0Q=",
		"NarSize: 120",
		"References: ",
		"CA: text:sha256:13ns0xymhkhgng27kis2x8w05bc8gw6nifqkg7r2npb3z0gfgqwc")
}

func TestCheckSignatures(t *testing.T) {
	a, b, stranger := secretKey(t, "a"), secretKey(t, "b"), secretKey(t, "stranger")
	impostor := renamed(t, stranger, "a")
	aliasOfA := renamed(t, a, "alias")
	public := func(keys ...narinfo.SecretKey) (out []narinfo.PublicKey) {
		for _, k := range keys {
			out = append(out, k.Public())
		}
		return out
	}
	for _, tc := range []struct {
		name      string
		trusted   []narinfo.PublicKey
		threshold int
		info      *narinfo.Info
		want      bool
	}{
		{"trusted", public(a), 1, signed(t, a), true},
		{"threshold of zero is one", public(a), 0, signed(t, a), true},
		{"threshold of zero is not none", public(a), 0, signed(t), false},
		{"negative threshold is one", public(a), -1, signed(t), false},
		{"stranger", public(a), 1, signed(t, stranger), false},
		{"impostor", public(a), 1, signed(t, impostor), false},
		{"impostor before the owner", public(a), 1, signed(t, impostor, a), true},
		{"no keys", nil, 0, signed(t, a), false},
		{"one of two", public(a, b), 2, signed(t, a), false},
		{"both of two", public(a, b), 2, signed(t, a, b), true},
		{"one twice", public(a, b), 2, signed(t, a, a), false},
		{"one and a stranger", public(a, b), 2, signed(t, a, stranger), false},
		{"one key under two names", public(a, aliasOfA), 2, signed(t, a, aliasOfA), false},
		{"three where two are needed", public(a, b, aliasOfA), 2, signed(t, aliasOfA, a, b), true},
		{"more needed than there are", public(a, b), 3, signed(t, a, b), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys := &trust.Keys{Trusted: tc.trusted, Threshold: tc.threshold}
			err := keys.Check(tc.info)
			if (err == nil) != tc.want || err != nil && !errors.Is(err, trust.ErrUntrusted) {
				t.Errorf("Check = %v; want accepted = %t", err, tc.want)
			}
		})
	}
}

func TestCheckContentAddressed(t *testing.T) {
	edit := func(info *narinfo.Info, f func(*narinfo.Info)) *narinfo.Info {
		f(info)
		return info
	}
	other := signed(t)
	for _, tc := range []struct {
		name string
		info *narinfo.Info
		want bool
	}{
		{"NAR hash", addressed(t), true},
		{"wrong NAR hash", edit(addressed(t), func(i *narinfo.Info) { i.NARHash = other.NARHash }), false},
		{"wrong NAR hash under the same wrong address", edit(addressed(t), func(i *narinfo.Info) {
			i.NARHash, i.CA = other.NARHash, "fixed:r:"+other.NARHash.String()
		}), false},
		{"wrong path", edit(addressed(t), func(i *narinfo.Info) { i.StorePath = other.StorePath }), false},
		{"reference dropped", edit(addressed(t), func(i *narinfo.Info) { i.References = nil }), false},
		{"reference added", edit(addressed(t), func(i *narinfo.Info) { i.References = append(i.References, other.StorePath) }), false},
		{"self reference added", edit(addressed(t), func(i *narinfo.Info) { i.References = append(i.References, i.StorePath) }), false},
		{"no address", edit(addressed(t), func(i *narinfo.Info) { i.CA = "" }), false},
		{"flat instead of NAR", edit(addressed(t), func(i *narinfo.Info) { i.CA = strings.Replace(i.CA, ":r:", ":", 1) }), false},
		{"malformed address", edit(addressed(t), func(i *narinfo.Info) { i.CA += "0" }), false},
		{"address in hexadecimal", edit(addressed(t), func(i *narinfo.Info) { i.CA = fmt.Sprintf("fixed:r:sha256:%x", i.NARHash[:]) }), true},
		{"address of another hash function", edit(addressed(t), func(i *narinfo.Info) { i.CA = strings.Replace(i.CA, "sha256", "blake3", 1) }), false},
		{"reference given twice", edit(addressed(t), func(i *narinfo.Info) { i.References = append(i.References, i.References...) }), true},
		{"reference to itself left out", edit(selfish(t), func(i *narinfo.Info) { i.References = i.References[1:] }), false},
		{"refers to itself", selfish(t), false},
		{"text", text(t), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys := &trust.Keys{Trusted: []narinfo.PublicKey{secretKey(t, "a").Public()}, Threshold: 2}
			if err := keys.Check(tc.info); (err == nil) != tc.want {
				t.Errorf("Check = %v; want accepted = %t", err, tc.want)
			}
		})
	}
}

// tree is an unsigned record of what Nix 2.34 made with `nix-store --add-fixed
// --recursive blake3`.
func tree(t *testing.T) *narinfo.Info {
	t.Helper()
	return parse(t,
		"StorePath: /nix/store/j0rj9z1xx6nyj1xaa3mysmdgxgbrdhbr-tree-blake3",
		"URL: nar/x.nar",
		"Compression: none",
		"NarHash: sha256-Sb/GGqJKTydY35HyQBEibW5kqfkXepgIylzsIt8W+p8=",
		"NarSize: 136",
		"References: ",
		"CA: fixed:r:blake3:1a7340c46pyhyzlg08xd76xk7wq8qxasicwj3wr69ifpm3y189l5")
}

// gitTree is a record whose path follows from its address, as Nix computes it.
func gitTree(t *testing.T) *narinfo.Info {
	t.Helper()
	info := tree(t)
	path, err := nix.ParseBaseName("r46nyg2x4rqcx5xks43a720cc7lh5xmb-git")
	if err != nil {
		t.Fatal(err)
	}
	info.StorePath, info.CA = path, "fixed:git:sha1:"+strings.Repeat("0", 32)
	address, err := nix.ParseContentAddress(info.CA)
	if err != nil || !address.Yields(path, nil) {
		t.Fatalf("%s does not yield %s: %v", info.CA, path, err)
	}
	return info
}

func TestAddressed(t *testing.T) {
	edit := func(info *narinfo.Info, f func(*narinfo.Info)) *narinfo.Info {
		f(info)
		return info
	}
	for _, tc := range []struct {
		name string
		info *narinfo.Info
		want bool
	}{
		{"NAR", addressed(t), true},
		{"refers to itself", selfish(t), true},
		{"text", text(t), true},
		{"BLAKE3", tree(t), true},
		{"git tree", gitTree(t), false},
		{"no address", signed(t), false},
		{"NAR with another NAR hash", edit(addressed(t), func(i *narinfo.Info) { i.NARHash[0]++ }), false},
		{"another path", edit(text(t), func(i *narinfo.Info) { i.StorePath = addressed(t).StorePath }), false},
		{"reference to itself left out", edit(selfish(t), func(i *narinfo.Info) { i.References = i.References[1:] }), false},
		{"text that refers to itself", edit(text(t), func(i *narinfo.Info) { i.References = []nix.StorePath{i.StorePath} }), false},
		{"tree by BLAKE3 with a reference", edit(tree(t), func(i *narinfo.Info) { i.References = addressed(t).References }), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := trust.Addressed(tc.info); got != tc.want {
				t.Errorf("Addressed() = %t, want %t", got, tc.want)
			}
		})
	}
}

func TestCleanSignatures(t *testing.T) {
	a, b, stranger := secretKey(t, "a"), secretKey(t, "b"), secretKey(t, "stranger")
	impostor := renamed(t, stranger, "a")
	keys := &trust.Keys{Trusted: []narinfo.PublicKey{a.Public(), b.Public()}}
	info := signed(t, impostor, stranger, a, a, stranger, b)
	before := signed(t)
	before.Signatures = append(before.Signatures, info.Signatures...)

	want := []string{"a", "b", "stranger"}
	clean := keys.Clean(info)
	var got []string
	for _, s := range clean.Signatures {
		got = append(got, s.KeyName)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("signatures of (-want +got):\n%s", diff)
	}
	if err := keys.Check(clean); err != nil {
		t.Errorf("Check of a clean record: %v", err)
	}
	clean.References[0] = info.StorePath
	if diff := cmp.Diff(before, info, byValue); diff != "" {
		t.Errorf("Clean or its result changed the original (-before +after):\n%s", diff)
	}
}

// Anybody can add signatures of keys that do not exist.
func TestCleanBoundsForeignSignatures(t *testing.T) {
	a := secretKey(t, "a")
	info := signed(t)
	for range 100 {
		info.Signatures = append(info.Signatures, secretKey(t, "nobody").Sign(info.Fingerprint()))
	}
	info.Signatures = append(info.Signatures, a.Sign(info.Fingerprint()))
	keys := &trust.Keys{Trusted: []narinfo.PublicKey{a.Public()}}
	clean := keys.Clean(info)
	if n := len(clean.Signatures); n != 17 {
		t.Errorf("%d signatures are left, want 17", n)
	}
	if err := keys.Check(clean); err != nil {
		t.Error(err)
	}
}

func TestCleanContentAddress(t *testing.T) {
	for _, tc := range []struct {
		name string
		info *narinfo.Info
		ca   string
		keep bool
	}{
		{"right", addressed(t), addressed(t).CA, true},
		{"right, refers to itself", selfish(t), selfish(t).CA, true},
		{"right, text", text(t), text(t).CA, true},
		{"right, but not every Nix knows BLAKE3", tree(t), tree(t).CA, false},
		{"right, but not every Nix knows git trees", gitTree(t), gitTree(t).CA, false},
		{"none", signed(t), "", true},
		{"of another path", addressed(t), text(t).CA, false},
		{"of another method", text(t), strings.Replace(text(t).CA, "text", "fixed", 1), false},
		{"malformed", addressed(t), "fixed:r:sha256:", false},
		{"unknown", addressed(t), "quantum:sha256:0", false},
		{"on a path that has none", signed(t), "fixed:r:" + signed(t).NARHash.String(), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := secretKey(t, "a")
			keys := &trust.Keys{Trusted: []narinfo.PublicKey{a.Public()}}
			tc.info.CA = tc.ca
			tc.info.Signatures = []narinfo.Signature{a.Sign(tc.info.Fingerprint())}
			if err := keys.Check(tc.info); err != nil {
				t.Fatal(err)
			}
			want := ""
			if tc.keep {
				want = tc.ca
			}
			if got := keys.Clean(tc.info).CA; got != want {
				t.Errorf("CA = %q, want %q", got, want)
			}
		})
	}
}

// Without signatures the address is all that Nix has; and every Nix can read
// its hash as Nix itself writes it.
func TestCleanUnsignedContentAddress(t *testing.T) {
	keys := &trust.Keys{Trusted: []narinfo.PublicKey{secretKey(t, "a").Public()}}
	if got := keys.Clean(tree(t)).CA; got != tree(t).CA {
		t.Errorf("CA = %q, want %q", got, tree(t).CA)
	}
	info := addressed(t)
	info.CA = fmt.Sprintf("fixed:r:sha256:%x", info.NARHash[:])
	if got := keys.Clean(info).CA; got != addressed(t).CA {
		t.Errorf("CA = %q, want %q", got, addressed(t).CA)
	}
}

func TestCleanKeepsGenuineRecords(t *testing.T) {
	key, err := narinfo.ParsePublicKey(cachetest.Key)
	if err != nil {
		t.Fatal(err)
	}
	keys := &trust.Keys{Trusted: []narinfo.PublicKey{key}}
	files, err := fs.Glob(cachetest.FS, "narinfo/*.narinfo")
	if err != nil || len(files) != 200 {
		t.Fatalf("%d records, %v", len(files), err)
	}
	for _, file := range files {
		data, err := fs.ReadFile(cachetest.FS, file)
		if err != nil {
			t.Fatal(err)
		}
		info, err := narinfo.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Check(info); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(info, keys.Clean(info), byValue); diff != "" {
			t.Errorf("%s (-before +after):\n%s", file, diff)
		}
	}
}

func TestMerge(t *testing.T) {
	a, b := secretKey(t, "a"), secretKey(t, "b")
	keys := &trust.Keys{Trusted: []narinfo.PublicKey{a.Public(), b.Public()}, Threshold: 2}

	liar := signed(t, b)
	liar.NARSize++
	fromA, fromB := signed(t, a), signed(t, b)
	fromB.URL, fromB.Compression = "nar/y.nar", "none"
	merged := trust.Merge(liar, fromA, fromB, fromA)
	if len(merged) != 2 {
		t.Fatalf("Merge returns %d records, want 2", len(merged))
	}
	if err := keys.Check(merged[0]); err == nil {
		t.Error("a record that nobody signed is accepted")
	}
	if err := keys.Check(merged[1]); err != nil {
		t.Errorf("signatures do not add up: %v", err)
	}
	if diff := cmp.Diff(signed(t, a, b), merged[1], byValue); diff != "" {
		t.Errorf("merged record (-want +got):\n%s", diff)
	}
	if len(fromA.Signatures) != 1 {
		t.Error("Merge changed its argument")
	}
	if got := trust.Merge(); len(got) != 0 {
		t.Errorf("Merge() = %v", got)
	}
}

// An honest source's content address must not be hidden by that of another.
func TestMergeContentAddress(t *testing.T) {
	none, bogus := addressed(t), addressed(t)
	none.CA = ""
	bogus.CA = text(t).CA
	keys := &trust.Keys{}
	for _, infos := range [][]*narinfo.Info{
		{none, bogus, addressed(t)},
		{addressed(t), none, bogus},
		{bogus, addressed(t), none},
	} {
		merged := trust.Merge(infos...)
		if len(merged) != 1 {
			t.Fatalf("Merge returns %d records, want 1", len(merged))
		}
		if err := keys.Check(merged[0]); err != nil {
			t.Error(err)
		}
	}
}
