package p2p_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/nar-p2p/nar-p2p/p2p"
)

func TestAPausedNodeSharesNothingAndFetches(t *testing.T) {
	held := newShelf(t, 1<<20)
	want := held.one()
	others := newShelf(t, 1<<20)
	paused := start(t, p2p.Config{Profile: p2p.Private, Network: "team"}, held)
	// Each is asked by a node of its own: who was sent away asks again after a while.
	meet := func() *node {
		other := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Peers: infos(paused)}, others)
		await(t, "a connection", func() bool { return other.sees(paused) != nil })
		return other
	}
	await(t, "announcing", func() bool { return paused.Status().Announcing != nil })

	for range 2 { // a pause is no once-only thing
		paused.Pause(true)
		if !paused.Status().Paused {
			t.Error("the status says nothing of the pause")
		}
		other := meet()
		if other.asks(t, want.StorePath.HashPart(), true) != nil {
			t.Error("a paused node gave a narinfo")
		}
		if _, err := other.fetches(t, want, true); err == nil {
			t.Error("a paused node gave a NAR")
		}
		await(t, "announcing to end", func() bool { return paused.Status().Announcing == nil })
		if err := paused.Announce(t.Context(), held.keys()...); !errors.Is(err, p2p.ErrNotAnnouncing) {
			t.Errorf("Announce() while paused = %v", err)
		}
		theirs := others.one()
		if got, err := paused.fetches(t, theirs, true); err != nil || !bytes.Equal(got, others.nars[theirs.NARHash]) {
			t.Errorf("a paused node fetched %d bytes, %v", len(got), err)
		}

		paused.Pause(false)
		await(t, "announcing to go on", func() bool { a := paused.Status().Announcing; return a != nil && a.Keys == 2 })
		await(t, "the other to hear of it", func() bool { p := other.sees(paused); return p != nil && p.Exchange })
		late := meet()
		await(t, "the NAR to be given again", func() bool {
			got, err := late.fetches(t, want, true)
			return err == nil && bytes.Equal(got, held.nars[want.NARHash])
		})
	}
}

// sees returns what the node knows of another one that it is connected with, or
// nil.
func (n *node) sees(other *node) *p2p.PeerStatus {
	for _, p := range n.Peers() {
		if p.ID == other.id {
			return &p
		}
	}
	return nil
}
