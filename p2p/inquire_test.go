package p2p_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p"
)

// holders inquires about a NAR and returns who holds it, of those who answered.
func (n *node) holders(t *testing.T, h nix.NARHash, strangers bool) (holds map[peer.ID]bool, searched bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	holds = make(map[peer.ID]bool)
	answers, searched := n.Inquire(ctx, h, strangers)
	for _, a := range answers {
		if a.Err != nil || !a.Connected {
			t.Errorf("%s: connected %v, %v", a.Peer.ID, a.Connected, a.Err)
		}
		holds[a.Peer.ID] = a.Holds
	}
	return holds, searched
}

func TestInquireHearsEveryNeighbour(t *testing.T) {
	held := newShelf(t, 1<<20)
	holder := start(t, p2p.Config{Profile: p2p.Private, Network: "team"}, held)
	other := start(t, p2p.Config{Profile: p2p.Private, Network: "team"}, newShelf(t))
	node := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Peers: infos(holder, other)}, newShelf(t))
	await(t, "connections", func() bool { return node.connected(holder) && node.connected(other) })
	want := map[peer.ID]bool{holder.id: true, other.id: false}
	// A private network has no strangers.
	for _, strangers := range []bool{true, false} {
		got, searched := node.holders(t, held.one().NARHash, strangers)
		if diff := cmp.Diff(want, got); diff != "" || !searched {
			t.Errorf("searched %v, holders (-want +got):\n%s", searched, diff)
		}
	}
}

func TestInquireTellsNoStranger(t *testing.T) {
	held := newShelf(t, 1<<20)
	want := held.one()
	stranger := start(t, p2p.Config{Profile: p2p.LAN, Network: p2p.PublicNetwork}, held)
	node := start(t, p2p.Config{Profile: p2p.LAN, Network: p2p.PublicNetwork, Peers: infos(stranger)}, newShelf(t))
	await(t, "a connection", func() bool { return node.connected(stranger) })
	if got, searched := node.holders(t, want.NARHash, false); len(got) != 0 || searched {
		t.Errorf("answers %v, searched %v", got, searched)
	}
	if served := stranger.Status().Served; served.Queries != 0 {
		t.Errorf("a stranger has heard %d queries", served.Queries)
	}
	if got, searched := node.holders(t, want.NARHash, true); !got[stranger.id] || searched {
		t.Errorf("answers %v, searched %v", got, searched)
	}
}
