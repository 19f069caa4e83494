package swarm

import (
	"context"
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/netgroup"
)

// votesNeeded is how many address groups, of one family, must name the same root
// before a manifest of strangers is believed. An IPv4 and an IPv6 group may be
// one cheap server.
const votesNeeded = 2

// concurrentVotes is how many providers are asked for their root at once.
const concurrentVotes = 4

// maxRoots bounds the roots that are kept apart: more than the peers that are
// asked.
const maxRoots = 2 * maxProviders

// votes counts who has which manifest. Identities are free, addresses less so:
// a vote counts once for each address group.
type votes struct {
	// changed is told of every vote.
	changed chan struct{}

	mu sync.Mutex
	// roots are in the order in which they were first named.
	roots []*ballot
}

// ballot is who has named one root.
type ballot struct {
	root   chunk.Root
	groups map[netip.Prefix]struct{}
	// trusted says that a trusted peer has.
	trusted bool
}

// weight is what a root's votes are worth.
type weight struct {
	trusted bool
	// groups counts the address groups, of the family that has more.
	groups int
}

// above reports whether a weight is more than another.
func (w weight) above(other weight) bool {
	if w.trusted != other.trusted {
		return w.trusted
	}
	return w.groups > other.groups
}

// enough reports whether bytes may be used under a manifest of this weight.
func (w weight) enough() bool { return w.trusted || w.groups >= votesNeeded }

func newVotes() *votes { return &votes{changed: make(chan struct{}, 1)} }

// add counts the vote of a peer that is directly connected from addr.
func (v *votes) add(root chunk.Root, addr ma.Multiaddr, trusted bool) {
	group, ok := netgroup.Of(addr)
	if !ok {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	b := v.ballot(root)
	if b == nil {
		if len(v.roots) == maxRoots {
			return
		}
		b = &ballot{root: root, groups: make(map[netip.Prefix]struct{})}
		v.roots = append(v.roots, b)
	}
	b.groups[group] = struct{}{}
	b.trusted = b.trusted || trusted
	select {
	case v.changed <- struct{}{}:
	default:
	}
}

// ballot returns what was said of a root, or nil; mu is held.
func (v *votes) ballot(root chunk.Root) *ballot {
	for _, b := range v.roots {
		if b.root == root {
			return b
		}
	}
	return nil
}

// weight returns what the votes for a root are worth.
func (v *votes) weight(root chunk.Root) weight {
	v.mu.Lock()
	defer v.mu.Unlock()
	if b := v.ballot(root); b != nil {
		return b.weight()
	}
	return weight{}
}

// best returns the root with the most weight that is not passed over, of equals
// the one that was named first.
func (v *votes) best(passOver func(chunk.Root) bool) (root chunk.Root, most weight, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, b := range v.roots {
		if w := b.weight(); !passOver(b.root) && (!ok || w.above(most)) {
			root, most, ok = b.root, w, true
		}
	}
	return root, most, ok
}

func (b *ballot) weight() weight {
	four, six := 0, 0
	for group := range b.groups {
		if group.Addr().Is4() {
			four++
		} else {
			six++
		}
	}
	return weight{trusted: b.trusted, groups: max(four, six)}
}

// ballot asks the first providers for their root.
func (t *Transfer) ballot(ctx context.Context) {
	defer close(t.voted)
	g := errgroup.Group{}
	g.SetLimit(concurrentVotes)
	for i := range maxProviders {
		p, ok := t.candidates.at(ctx, i)
		if !ok {
			break
		}
		g.Go(func() error {
			if err := t.ask(ctx, p.ID); err != nil {
				t.swarm.log.Debug("provider does not vote", zap.Stringer("peer", p.ID), zap.Error(err))
			}
			return nil
		})
	}
	_ = g.Wait() // nobody returns an error
}

// ask asks one provider for its root.
func (t *Transfer) ask(ctx context.Context, p peer.ID) error {
	holdings, err := t.swarm.client.Have(ctx, p, []nix.NARHash{t.want.Hash})
	if err != nil {
		return err
	}
	if addr, direct := t.swarm.client.DirectAddr(p); direct && holdings[0].RootKnown {
		t.votes.add(holdings[0].Root, addr, t.swarm.trusted(p, addr))
	}
	return nil
}
