package locate_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/p2p/locate"
)

// Many identities behind one address come first, and do not keep out others.
func TestOneAddressGroupDoesNotFillTheHolders(t *testing.T) {
	crowd, others := make([]peer.ID, 40), make([]peer.ID, 4)
	place := func(cfg *locate.Config) {
		for i := range crowd {
			crowd[i] = peer.ID(fmt.Sprintf("crowd-%d", i))
			cfg.Book.AddAddrs(crowd[i], []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/ip4/11.0.1.%d/tcp/1", i+1))}, time.Hour)
		}
		for i := range others {
			others[i] = peer.ID(fmt.Sprintf("other-%d", i))
			cfg.Book.AddAddrs(others[i], []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/ip4/11.0.2.%d/tcp/1", i+1))}, time.Hour)
		}
	}
	inWorld(t, func(w *world) {
		for _, p := range slices.Concat(crowd, others) {
			w.holds[p] = append(w.holds[p], hash(1))
		}
		w.neighbours[true] = crowd
		w.f.Expect(hash(1), true)
		w.settle()
		w.change(func() { w.neighbours[true] = slices.Concat(crowd, others) })
		for _, p := range others {
			w.f.Neighbour(p)
		}
		w.settle()
		holders := w.f.Holders(hash(1))
		for _, p := range others {
			if !slices.Contains(holders, p) {
				w.t.Errorf("%s is not among the %d holders", p, len(holders))
			}
		}
		if want := 32; len(holders) != want {
			w.t.Errorf("%d holders, want %d", len(holders), want)
		}
	}, place)
}
