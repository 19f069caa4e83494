package locate

import (
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/p2p/netgroup"
)

// group is where a peer is, as exactly as one who is cheap to get addresses there;
// zero on the local network, and where it is not known.
func (f *Finder) group(p peer.ID) (g netip.Prefix) {
	for _, addr := range f.cfg.Book.Addrs(p) {
		if g, ok := netgroup.Far(addr); ok {
			return g
		}
	}
	return g
}

// makeRoom drops a holder of a NAR for another, if that makes the largest of the
// groups of addresses smaller: however many identities somebody has, they are not
// all that is known. Of the group it drops the one that was found last, first such
// as have not said themselves that they hold the NAR; mu is held.
func (f *Finder) makeRoom(e *entry, newcomer peer.ID) bool {
	if e.key.kind != nars { // Records are handed on in their order.
		return false
	}
	groups := make([]netip.Prefix, len(e.holders))
	sizes := make(map[netip.Prefix]int)
	for i, h := range e.holders {
		groups[i] = f.group(h.peer)
		sizes[groups[i]]++
	}
	delete(sizes, netip.Prefix{})
	var largest netip.Prefix
	for g, size := range sizes {
		if size > sizes[largest] {
			largest = g
		}
	}
	if sizes[largest] <= sizes[f.group(newcomer)]+1 {
		return false
	}
	out := -1
	for i, h := range e.holders {
		if groups[i] == largest && (out < 0 || !h.own || e.holders[out].own) {
			out = i
		}
	}
	e.holders = slices.Delete(e.holders, out, out+1)
	return true
}
