package narinfo_test

import (
	"fmt"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

const example = `StorePath: /nix/store/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl-7.82.0-bin
URL: nar/05ra3y72i3qjri7xskf9qj8kb29r6naqy1sqpbs3azi3xcigmj56.nar.xz
Compression: xz
FileHash: sha256:05ra3y72i3qjri7xskf9qj8kb29r6naqy1sqpbs3azi3xcigmj56
FileSize: 68852
NarHash: sha256:1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0
NarSize: 196040
References: 0jqd0rlxzra1rs38rdxl43yh6rxchgc6-curl-7.82.0 6w8g7njm4mck5dmjxws0z1xnrxvl81xa-glibc-2.34-115 j5jxw3iy7bbz4a57fh9g2xm2gxmyal8h-zlib-1.2.12 yxvjs9drzsphm9pcf42a4byzj1kb9m7k-openssl-1.1.1n
Sig: cache.nixos.org-1:TsTTb3WGTZKphvYdBHXwo6weVILmTytUjLB+vcX89fOjjRicCHmKA4RCPMVLkj6TMJ4GMX3HPVWRdD1hkeKZBQ==
`

// A record is worth what the signatures of known keys are worth.
func ExampleInfo_SignedBy() {
	info, err := narinfo.Parse([]byte(example))
	if err != nil {
		panic(err)
	}
	key, err := narinfo.ParsePublicKey("cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=")
	if err != nil {
		panic(err)
	}
	fmt.Println(len(info.SignedBy([]narinfo.PublicKey{key})), "good signature")

	info.NARSize++ // as a liar would
	fmt.Println(len(info.SignedBy([]narinfo.PublicKey{key})), "good signatures")
	// Output:
	// 1 good signature
	// 0 good signatures
}

// What is not signed may be rewritten, here to the form in which a node serves
// its own paths.
func ExampleInfo_Bytes() {
	info, err := narinfo.Parse([]byte(example))
	if err != nil {
		panic(err)
	}
	info.URL = narinfo.NARURL(info.StorePath.HashPart(), info.NARHash)
	info.Compression = "none"
	info.FileHash, info.FileSize = info.NARHash.String(), info.NARSize
	info.References = nil // for a shorter example; this breaks the signature
	info.Signatures = nil
	fmt.Printf("%s", info.Bytes())
	// Output:
	// StorePath: /nix/store/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl-7.82.0-bin
	// URL: nar/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0.nar
	// Compression: none
	// FileHash: sha256:1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0
	// FileSize: 196040
	// NarHash: sha256:1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0
	// NarSize: 196040
	// References:
}

// Signing needs a key in the form of Nix's own key files.
func ExampleSecretKey_Sign() {
	info, err := narinfo.Parse([]byte(example))
	if err != nil {
		panic(err)
	}
	key, err := narinfo.GenerateSecretKey("builder.example.org-1")
	if err != nil {
		panic(err)
	}
	info.Signatures = append(info.Signatures, key.Sign(info.Fingerprint()))
	for _, signer := range info.SignedBy([]narinfo.PublicKey{key.Public()}) {
		fmt.Println("signed by", signer.Name)
	}
	// Output: signed by builder.example.org-1
}
