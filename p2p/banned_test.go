package p2p_test

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/p2p"
)

// A peer that is banned is disconnected, gets no answer, and is not dialled, in
// whatever network and although it is configured; when the ban is over it is a peer
// like others.
func TestBannedPeersGetNothing(t *testing.T) {
	held := newShelf(t, 1<<20)
	want := held.one()
	part := want.StorePath.HashPart()
	key, id := newIdentity(t)
	provider := start(t, p2p.Config{Profile: p2p.Private, Network: "team"}, held)
	other := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Peers: infos(provider), Identity: key}, newShelf(t))
	await(t, "an answer before the ban", func() bool { return other.asks(t, part, false) != nil })
	queries := provider.Status().Served.Queries

	if err := provider.Ban(t.Context(), id, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if provider.connected(other) {
		t.Error("the banned peer is still connected")
	}
	if _, err := other.fetches(t, want, false); err == nil {
		t.Error("the banned peer got a NAR")
	}
	if err := provider.Connect(t.Context(), peer.AddrInfo{ID: id, Addrs: infos(other)[0].Addrs}); err == nil {
		t.Error("the banned peer was dialled")
	}
	if got := provider.Status().Served.Queries; got != queries {
		t.Errorf("the banned peer had %d queries answered", got-queries)
	}

	if _, err := provider.Unban(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	await(t, "an answer after the ban", func() bool { return other.asks(t, part, false) != nil })
}
