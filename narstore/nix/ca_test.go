package nix_test

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

func mustPath(t *testing.T, baseName string) nix.StorePath {
	t.Helper()
	p, err := nix.ParseBaseName(baseName)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustPaths(t *testing.T, baseNames []string) []nix.StorePath {
	t.Helper()
	paths := make([]nix.StorePath, len(baseNames))
	for i, name := range baseNames {
		paths[i] = mustPath(t, name)
	}
	return paths
}

// What Nix 2.8 made of small trees with `nix-store --add`, `nix-store
// --add-fixed`, builtins.toFile and `nix store make-content-addressed`.
var addressed = []struct {
	name, ca, path string
	references     []string
}{
	{
		name: "added tree",
		ca:   "fixed:r:sha256:0wm4jgbgk7lyzlhms0m0jj5xqvjd5pis7zv2lcwpxd84xlq2hskp",
		path: "dbrxqwdrsiczhmfvwc16vzhji2cf6hk7-d",
	},
	{
		name: "file by sha256",
		ca:   "fixed:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq",
		path: "1vap48aqggkk52ijn2prxzxv7cnzvs0w-file",
	},
	{
		name: "file by sha1",
		ca:   "fixed:sha1:iwjz551fyw0cxcjgf4l6c879zabd6wpm",
		path: "l5iffh8kph4i94caqw5n922jv21iqsnn-file",
	},
	{
		name: "file by md5",
		ca:   "fixed:md5:4425hx5d1mc9y39llj4k4nm55i",
		path: "2x5vawdjxf3qqbrasysajvw675i0170z-file",
	},
	{
		name: "tree by sha1",
		ca:   "fixed:r:sha1:9skv49wb4irfpj1gzhnxwihglyhnsj0n",
		path: "bxqgv7rbjf58sr95vivnipac550drssx-d",
	},
	{
		name: "tree by sha512",
		ca:   "fixed:r:sha512:3ymiccm08xvxzd65wlw9zk5fwpag9w3kki088ckz9vl7j7l1vcykisz8r7vcwaf7jx03rsliby9688kydsr7ykf2kyrksys1bzigmwv",
		path: "bc74x2dhg26g13szaw91d83cwf934spz-d",
	},
	{
		name: "text",
		ca:   "text:sha256:13ns0xymhkhgng27kis2x8w05bc8gw6nifqkg7r2npb3z0gfgqwc",
		path: "c61i4gz5k01hfwfm979s0m23hxb0c733-dep",
	},
	{
		name:       "text with a reference",
		ca:         "text:sha256:02p3fbrmgv6zg71g58wx1lks909121vcb2amvbqp8bjhaf3m5xxa",
		path:       "bxjrgajs73fbcmsz0a3sa2l2n695vydv-wrapper",
		references: []string{"c61i4gz5k01hfwfm979s0m23hxb0c733-dep"},
	},
	{
		name:       "tree with a reference",
		ca:         "fixed:r:sha256:1cz5xdd7gi6mi1dwvzw4bq95gp41rah8cb59z3sjx12j92k0xysa",
		path:       "jvvss9xln7zbbidlmvvb80mhgh5wndgy-wrapper",
		references: []string{"az31knmcmkcvqp327ha4d0jxlpimbbi3-dep"},
	},
	{
		name:       "tree that refers to itself",
		ca:         "fixed:r:sha256:1bpin3r18xbmnbcha4l9zw13nw72mwpaq9fjb9g3jhya34wnvpjp",
		path:       "caxq71rpspidbjf3lfz2qciqyiy6rbx4-selfish",
		references: []string{"caxq71rpspidbjf3lfz2qciqyiy6rbx4-selfish", "jvvss9xln7zbbidlmvvb80mhgh5wndgy-wrapper"},
	},
	{ // https://cache.nixos.org/rd62mxadp2871cc4j9dxk53zqn8c90y7.narinfo
		name: "derivation",
		ca:   "text:sha256:1kr6h9rkk2rhyj35isglsf55m1nz9lybi1m2k2sv6iwb8i6didhx",
		path: "rd62mxadp2871cc4j9dxk53zqn8c90y7-help2man-1.49.1.drv",
		references: []string{
			"9krlzvny65gdc8s7kpb6lkx8cd02c25b-default-builder.sh",
			"9nannq1avpff6bkjkb2ipya0shyvlbrv-perl-5.34.1.drv",
			"fj97wzh320hygf6cl2b7mzbybvril7fl-bootstrap-stage4-stdenv-linux.drv",
			"lkaf72cmp4nlxxh2pg1yizldbymr62lx-perl5.34.1-gettext-1.07.drv",
			"ra77ww7p2xx8jh8n4m9vmj6wc8wxijdb-bootstrap-tools.drv",
			"wsqm127z52159zzrd39ikvi07zcdk50d-help2man-1.49.1.tar.xz.drv",
			"y43l52n05dshbbkgkfyvg7vns1bsfgl0-gettext-0.21.drv",
		},
	},
}

func TestYields(t *testing.T) {
	const foreign = "26xbg1ndr7hbcncrlf9nhx5is2b25d13-hello-2.12.1"
	for _, tc := range addressed {
		t.Run(tc.name, func(t *testing.T) {
			ca, err := nix.ParseContentAddress(tc.ca)
			if err != nil {
				t.Fatal(err)
			}
			path, references := mustPath(t, tc.path), mustPaths(t, tc.references)
			if !ca.Yields(path, references) {
				t.Error("does not yield the path that Nix made")
			}
			if got := ca.String(); got != tc.ca {
				t.Errorf("String() = %q, want %q", got, tc.ca)
			}
			if ca.Yields(mustPath(t, tc.path+"x"), references) {
				t.Error("yields another name")
			}
			if ca.Yields(mustPath(t, foreign), references) {
				t.Error("yields another hash part")
			}
			if ca.Yields(path, append(mustPaths(t, tc.references), mustPath(t, foreign))) {
				t.Error("yields the path with a surplus reference")
			}
			if ca.Yields(path, append(mustPaths(t, tc.references), path)) != (tc.name == "tree that refers to itself") {
				t.Error("a surplus reference to itself is not told apart")
			}
			if len(references) > 0 && ca.Yields(path, references[1:]) {
				t.Error("yields the path without its first reference")
			}
			last := tc.ca[len(tc.ca)-1]
			other, err := nix.ParseContentAddress(tc.ca[:len(tc.ca)-1] + string('0'+(last+1)%2))
			if err != nil {
				t.Fatal(err)
			}
			if other.Yields(path, references) {
				t.Error("another hash yields the path")
			}
		})
	}
}

// Nix makes paths of git trees by sha-1 or sha-256 only.
func TestGitTreesByOtherHashes(t *testing.T) {
	for _, tc := range []struct {
		algorithm, path string
		size            int
		want            bool
	}{
		{"sha1", "r46nyg2x4rqcx5xks43a720cc7lh5xmb-git", 32, true},
		{"md5", "xlnwnl1f0symlvghb2n22b3j3zm5jh2n-git", 26, false},
	} {
		ca, err := nix.ParseContentAddress("fixed:git:" + tc.algorithm + ":" + strings.Repeat("0", tc.size))
		if err != nil {
			t.Fatal(err)
		}
		if got := ca.Yields(mustPath(t, tc.path), nil); got != tc.want {
			t.Errorf("%s yields %s: %t, want %t", ca, tc.path, got, tc.want)
		}
	}
}

func TestYieldsWhateverTheOrder(t *testing.T) {
	for _, tc := range addressed {
		ca, err := nix.ParseContentAddress(tc.ca)
		if err != nil {
			t.Fatal(err)
		}
		references := mustPaths(t, tc.references)
		backwards := make([]nix.StorePath, 0, 2*len(references))
		for _, r := range slices.Backward(references) {
			backwards = append(backwards, r, r)
		}
		if !ca.Yields(mustPath(t, tc.path), backwards) {
			t.Errorf("%s: the order or a repetition of references matters", tc.name)
		}
	}
}

func TestParseContentAddress(t *testing.T) {
	sum := strings.Repeat("0", 52)
	for _, tc := range []struct {
		name, in   string
		ok, narSum bool
	}{
		{"NAR", "fixed:r:sha256:" + sum, true, true},
		{"NAR in hexadecimal", "fixed:r:sha256:" + strings.Repeat("0", 64), true, true},
		{"file", "fixed:sha256:" + sum, true, false},
		{"text", "text:sha256:" + sum, true, false},
		{"git", "fixed:git:sha1:" + sum[:32], true, false},
		{"sha1", "fixed:r:sha1:" + sum[:32], true, false},
		{"md5", "fixed:md5:" + sum[:26], true, false},
		{"sha512", "fixed:r:sha512:" + strings.Repeat("0", 103), true, false},
		{"blake3", "fixed:r:blake3:" + sum, true, false},
		{"empty", "", false, false},
		{"method alone", "fixed:r:", false, false},
		{"unknown method", "floating:sha256:" + sum, false, false},
		{"recursive text", "text:r:sha256:" + sum, false, false},
		{"unknown hash", "fixed:r:sha3:" + sum, false, false},
		{"no hash", "fixed:r:sha256:", false, false},
		{"no colon", "fixed:r:sha256", false, false},
		{"short", "fixed:r:sha256:" + sum[1:], false, false},
		{"sha1 of sha256's length", "fixed:r:sha1:" + sum, false, false},
		{"blank", "fixed:r:sha256:" + sum + " ", false, false},
		{"SRI", "fixed:r:sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca, err := nix.ParseContentAddress(tc.in)
			if (err == nil) != tc.ok {
				t.Fatalf("ParseContentAddress(%q) = %v, %v; want ok = %t", tc.in, ca, err, tc.ok)
			}
			if again, err := nix.ParseContentAddress(ca.String()); tc.ok && (err != nil || again != ca) {
				t.Errorf("String() = %q, which is parsed as %v, %v", ca, again, err)
			}
			if hash, ok := ca.NARHash(); ok != tc.narSum || hash != (nix.NARHash{}) {
				t.Errorf("NARHash() = %s, %t; want %t", hex.EncodeToString(hash[:]), ok, tc.narSum)
			}
		})
	}
}
