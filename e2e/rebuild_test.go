package e2e

import (
	"testing"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/e2e/rebuild"
)

// TestOfARebuildWhatDiffersIsFetched adds a line to a library from which ten
// packages are built, and has a machine that has the old ones substitute the new.
func TestOfARebuildWhatDiffersIsFetched(t *testing.T) {
	n, err := rebuild.NewNetwork(lab.New(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg := rebuild.Config{Packages: 10, Seed: 1, MedianCode: 20 << 10}
	old, err := n.Build(cfg, "system")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Change = rebuild.Line
	upgraded, err := n.Build(cfg, "system")
	if err != nil {
		t.Fatal(err)
	}
	common, err := rebuild.Measure(t.Context(), n.Places(old), n.Places(upgraded))
	if err != nil {
		t.Fatal(err)
	}
	t.Log(common)

	got, err := n.Upgrade(old, upgraded)
	if err != nil {
		t.Fatal(err)
	}
	if got.NARs != common.NARs || got.Fetched+got.Reused != got.NARs {
		t.Errorf("%d bytes were fetched and %d reused, of NARs of %d, want all of %d", got.Fetched, got.Reused, got.NARs, common.NARs)
	}
	// The leaf, which did change, is a good part of so few packages.
	if got.Fetched > got.NARs/5 || got.Others > got.NARs/20 {
		t.Errorf("%d bytes of %d were fetched, and %d others: want a fifth and a twentieth at most", got.Fetched, got.NARs, got.Others)
	}
	if got.Fetched > common.Fetched*11/10 {
		t.Errorf("%d bytes were fetched; %d are in chunks that are not there", got.Fetched, common.Fetched)
	}
}
