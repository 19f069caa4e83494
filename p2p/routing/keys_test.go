package routing_test

import (
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// The keys are part of the protocol: other implementations and IPFS tools look
// them up.
func TestKeys(t *testing.T) {
	hash, err := nix.ParseNARHash("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	if err != nil {
		t.Fatal(err)
	}
	part, err := nix.ParseHashPart("00000000000000000000000000000001")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := routing.ContentKey(hash).String(), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"; got != want {
		t.Errorf("ContentKey(%v) = %v, want %v", hash, got, want)
	}
	if got, want := routing.MetadataKey(part).String(), "bafkreih3p5g6detcbuxmtl2hvldd63kdccaqb4pnu3lisjccfsxvejmgnq"; got != want {
		t.Errorf("MetadataKey(%v) = %v, want %v", part, got, want)
	}
}
