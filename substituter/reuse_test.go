package substituter_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// What comes out of other paths of the local store is counted apart, and told.
func TestReusedBytes(t *testing.T) {
	l := newLab(t)
	p := l.path("p", large)
	l.cache.add(p)
	l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true, earned: true, local: large * 3 / 4})
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	told, err := l.server.Explain(t.Context(), p.info.StorePath.HashPart())
	if err != nil {
		t.Fatal(err)
	}
	if e := told.Plan.Sources[0].Expected; told.Plan.Order != explain.HolderKnown || e == nil || e.Local != 0.75 {
		t.Errorf("plan: %q, expected %+v, want peers first, three quarters local", told.Plan.Order, e)
	}
	l.getNAR(p)
	want := map[string]uint64{"store": 0, "peer": large / 4, "upstream": 0, "reuse": large * 3 / 4}
	if diff := cmp.Diff(want, l.server.Stats().NARBytes); diff != "" {
		t.Errorf("NARBytes (-want +got):\n%s", diff)
	}
	told, err = l.server.Explain(t.Context(), p.info.StorePath.HashPart())
	if err != nil {
		t.Fatal(err)
	}
	var got *explain.Reused
	for _, s := range told.Fetch.Sources {
		if s.Kind == explain.FromPeers {
			got = s.Reused
		}
	}
	if diff := cmp.Diff(&explain.Reused{BySum: large * 3 / 16, ByMaskedSum: large * 9 / 16}, got); diff != "" {
		t.Errorf("Reused (-want +got):\n%s", diff)
	}
}
