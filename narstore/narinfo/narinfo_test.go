package narinfo_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// curl is a genuine record with four references and the signatures of two keys.
const curl = "syd87l2rxw8cbsxmxl853h0r6pdwhwjr"

// Every row is a genuine record after one edit.
func TestEditedRecords(t *testing.T) {
	genuine := record(t, curl)
	line := func(key string) string {
		_, rest, _ := strings.Cut(genuine, "\n"+key+": ")
		value, _, _ := strings.Cut(rest, "\n")
		return key + ": " + value + "\n"
	}
	sig := line("Sig")
	badSig := "Sig: cache.nixos.org-1:" + strings.Repeat("A", 86) + "==\n"
	const (
		refused  = iota // Parse returns an error
		unsigned        // it parses, but the signature does not cover it
		signed
	)
	for _, tc := range []struct {
		name, old, new string
		want           int
	}{
		{"unchanged", "", "", signed},
		{"reference dropped", "0jqd0rlxzra1rs38rdxl43yh6rxchgc6-curl-7.82.0 ", "", unsigned},
		{"reference added", "References: ", "References: 26xbg1ndr7hbcncrlf9nhx5is2b25d13-hello ", unsigned},
		{"references in another order", "6w8g7njm4mck5dmjxws0z1xnrxvl81xa-glibc-2.34-115 j5jxw3iy7bbz4a57fh9g2xm2gxmyal8h-zlib-1.2.12", "j5jxw3iy7bbz4a57fh9g2xm2gxmyal8h-zlib-1.2.12 6w8g7njm4mck5dmjxws0z1xnrxvl81xa-glibc-2.34-115", signed},
		{"reference repeated", "References: ", "References: j5jxw3iy7bbz4a57fh9g2xm2gxmyal8h-zlib-1.2.12 ", signed},
		{"references as full paths", "References: ", "References: /nix/store/", refused},
		{"references split by a tab", "curl-7.82.0 6w8g7", "curl-7.82.0\t6w8g7", refused},
		{"references dropped", line("References"), "", unsigned},
		{"references without their blank", line("References"), "References:\n", unsigned},
		{"references given twice", line("References"), line("References") + line("References"), refused},
		{"size changed", "NarSize: 196040", "NarSize: 196041", unsigned},
		{"size zero", "NarSize: 196040", "NarSize: 0", refused},
		{"size negative", "NarSize: 196040", "NarSize: -1", refused},
		{"size with a sign", "NarSize: 196040", "NarSize: +196040", refused},
		{"size beyond 63 bits", "NarSize: 196040", "NarSize: 9223372036854775808", refused},
		{"size in hexadecimal", "NarSize: 196040", "NarSize: 0x2fdc8", refused},
		{"size of one more digit in the file", "FileSize: 68852", "FileSize: 688520", signed},
		{"size missing", line("NarSize"), "", refused},
		{"hash changed", "NarHash: sha256:1b4s", "NarHash: sha256:1b4r", unsigned},
		{"hash in base-64", line("NarHash"), "NarHash: sha256-QHvNm2CLenj5iFkwws4fyvrgl30xzNQ/wemYy0damqw=\n", signed},
		{"hash of another kind", "NarHash: sha256:", "NarHash: sha512:", refused},
		{"hash missing", line("NarHash"), "", refused},
		{"path changed", "7.82.0-bin\nURL", "7.82.0-dev\nURL", unsigned},
		{"path of another store", "StorePath: /nix/", "StorePath: /gnu/", refused},
		{"path missing", "StorePath: /nix/store/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl-7.82.0-bin\n", "", refused},
		{"URL missing", line("URL"), "", refused},
		{"URL empty", line("URL"), "URL: \n", refused},
		{"compression missing", line("Compression"), "", signed},
		{"deriver missing", line("Deriver"), "", signed},
		{"deriver unknown", line("Deriver"), "Deriver: unknown-deriver\n", signed},
		{"deriver as a full path", "Deriver: ", "Deriver: /nix/store/", refused},
		{"unknown key", "URL: ", "Colour: blue\nURL: ", signed},
		{"unknown key given twice", "URL: ", "Colour: blue\nColour: red\nURL: ", refused},
		{"line without a key", "URL: ", "blue\nURL: ", refused},
		{"empty line", "URL: ", "\nURL: ", refused},
		{"indented key", "URL: ", " URL: ", refused},
		{"signature of another key alone", sig, "", unsigned},
		{"signature under another name", "Sig: cache.nixos.org-1:", "Sig: cache.nixos.org-2:", unsigned},
		{"bad signature before the good one", sig, badSig + sig, signed},
		{"bad signature after the good one", sig, sig + badSig, signed},
		{"bad signature alone", sig, badSig, unsigned},
		{"good signature twice", sig, sig + sig, signed},
		{"malformed signature before the good one", sig, "Sig: cache.nixos.org-1\n" + sig, signed},
		{"signature cut short", "hkeKZBQ==\n", "hkeKZBQ=\n", unsigned},
		{"hash given twice", line("NarHash"), line("NarHash") + line("NarHash"), refused},
		{"content address given twice", sig, sig + "CA: text:x\nCA: text:y\n", refused},
		{"no final line end", "mmMBQ==\n", "mmMBQ==", refused},
		{"line ends of DOS", "\n", "\r\n", refused},
		{"NUL", "Compression: xz", "Compression: xz\x00", refused},
		{"nothing", genuine, "", refused},
		{"line end alone", genuine, "\n", refused},
		{"too many lines", "URL: ", strings.Repeat("Sig: x\n", 250) + "URL: ", refused},
		{"too large", "URL: ", "Colour: " + strings.Repeat("b", narinfo.MaxSize) + "\nURL: ", refused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.ReplaceAll(genuine, tc.old, tc.new)
			if tc.name != "unchanged" && text == genuine {
				t.Fatal("the edit changes nothing")
			}
			info, err := narinfo.Parse([]byte(text))
			if (err == nil) != (tc.want != refused) {
				t.Fatalf("Parse: %v", err)
			}
			if err != nil {
				return
			}
			key := mustKey(t, cachetest.Key)
			if got := len(info.SignedBy([]narinfo.PublicKey{key})) == 1; got != (tc.want == signed) {
				t.Errorf("signed = %t", got)
			}
			valid := info.ValidSignatures([]narinfo.PublicKey{key})
			if got := len(valid) == 1; got != (tc.want == signed) {
				t.Errorf("ValidSignatures = %v", valid)
			}
		})
	}
}

func TestParseDefaults(t *testing.T) {
	text := strings.NewReplacer("Compression: xz\n", "", "FileHash: ", "X: ", "FileSize: ", "Y: ").Replace(record(t, curl))
	info, err := narinfo.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if info.Compression != "bzip2" || info.FileHash != "" || info.FileSize != 0 {
		t.Errorf("Compression = %q, FileHash = %q, FileSize = %d", info.Compression, info.FileHash, info.FileSize)
	}
	if got := string(info.Bytes()); !strings.Contains(got, "\nCompression: bzip2\n") || strings.Contains(got, "File") {
		t.Errorf("Bytes() = %s", got)
	}
}

func TestParsesBytesAsTheyAre(t *testing.T) {
	// With the order, the blanks and the hashes of a Hydra, Bytes is the
	// identity.
	text := record(t, curl)
	info, err := narinfo.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, string(info.Bytes())); diff != "" {
		t.Errorf("Bytes (-want +got):\n%s", diff)
	}
}

func TestSign(t *testing.T) {
	info, err := narinfo.Parse([]byte(record(t, curl)))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := narinfo.GenerateSecretKey("team-1")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := narinfo.ParseSecretKey(secret.Text() + "\n"); err != nil || again.Text() != secret.Text() {
		t.Fatalf("ParseSecretKey(Text()): %v", err)
	}
	public := mustKey(t, secret.Public().String())
	cache := mustKey(t, cachetest.Key)
	alias := mustKey(t, strings.Replace(public.String(), "team-1:", "team-2:", 1))

	info.Signatures = append(info.Signatures, secret.Sign(info.Fingerprint()))
	renamed := info.Signatures[len(info.Signatures)-1]
	renamed.KeyName = "team-2"
	info.Signatures = append(info.Signatures, renamed)

	for _, tc := range []struct {
		name string
		keys []narinfo.PublicKey
		want []narinfo.PublicKey
	}{
		{"none", nil, nil},
		{"both", []narinfo.PublicKey{public, cache}, []narinfo.PublicKey{public, cache}},
		{"listed twice", []narinfo.PublicKey{public, public}, []narinfo.PublicKey{public}},
		{"one key under two names", []narinfo.PublicKey{public, alias, cache}, []narinfo.PublicKey{public, cache}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, info.SignedBy(tc.keys), cmp.Comparer(func(a, b narinfo.PublicKey) bool { return a == b })); diff != "" {
				t.Errorf("SignedBy (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseKeys(t *testing.T) {
	data := strings.TrimPrefix(cachetest.Key, "cache.nixos.org-1:")
	for _, tc := range []struct {
		name, in string
		ok       bool
	}{
		{"good", cachetest.Key, true},
		{"no name", ":" + data, false},
		{"no colon", data, false},
		{"blank in the name", "my key:" + data, false},
		{"carriage return in the name", "my\rkey:" + data, false},
		{"short", "k:AAAA", false},
		{"not base-64", "k:" + data[:43] + "*", false},
		{"surplus bits", "k:" + data[:42] + "Z=", false},
		{"empty", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, err := narinfo.ParsePublicKey(tc.in)
			if (err == nil) != tc.ok || err == nil && k.String() != tc.in {
				t.Errorf("ParsePublicKey(%q) = %s, %v; want ok = %t", tc.in, k, err, tc.ok)
			}
		})
	}
	if _, err := narinfo.ParseSecretKey("team-1:c2VjcmV0"); err == nil || strings.Contains(err.Error(), "c2VjcmV0") {
		t.Errorf("ParseSecretKey of a short key: %v", err)
	}
}

func TestParseNARURL(t *testing.T) {
	const part, hash = "syd87l2rxw8cbsxmxl853h0r6pdwhwjr", "1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0"
	for _, tc := range []struct {
		url string
		ok  bool
	}{
		{"nar/" + part + "-" + hash + ".nar", true},
		{"/nar/" + part + "-" + hash + ".nar", false},
		{"nar/" + part + "-" + hash + ".nar.xz", false},
		{"nar/" + part + "-" + hash, false},
		{part + "-" + hash + ".nar", false},
		{"nar/" + hash + ".nar", false},
		{"nar/" + part + "-" + part + ".nar", false},
		{"nar/" + part[1:] + "-" + hash + ".nar", false},
		{"nar/" + part + "-" + hash + ".nar?x", false},
		{"nar/../" + part + "-" + hash + ".nar", false},
		{"", false},
	} {
		gotPart, gotHash, err := narinfo.ParseNARURL(tc.url)
		if (err == nil) != tc.ok || err == nil && narinfo.NARURL(gotPart, gotHash) != tc.url {
			t.Errorf("ParseNARURL(%q) = %s, %s, %v; want ok = %t", tc.url, gotPart, gotHash, err, tc.ok)
		}
	}
}
