package narinfo

import (
	"fmt"
	"strings"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// NARURL returns the URL under which a node serves a NAR,
// "nar/<hash part>-<NAR hash>.nar". It describes itself, because Nix keeps it
// for 30 days: it must resolve on a node that has lost its state.
func NARURL(part nix.HashPart, hash nix.NARHash) string {
	return "nar/" + part.String() + "-" + hash.Base32() + ".nar"
}

// ParseNARURL is the inverse of NARURL.
func ParseNARURL(url string) (nix.HashPart, nix.NARHash, error) {
	rest, isNAR := strings.CutPrefix(url, "nar/")
	rest, isFile := strings.CutSuffix(rest, ".nar")
	partText, hashText, ok := strings.Cut(rest, "-")
	if !isNAR || !isFile || !ok {
		return nix.HashPart{}, nix.NARHash{}, fmt.Errorf("narinfo: %.200q is not a NAR URL of a node", url)
	}
	part, err := nix.ParseHashPart(partText)
	if err != nil {
		return nix.HashPart{}, nix.NARHash{}, err
	}
	hash, err := nix.ParseNARHashBase32(hashText)
	if err != nil {
		return nix.HashPart{}, nix.NARHash{}, err
	}
	return part, hash, nil
}
