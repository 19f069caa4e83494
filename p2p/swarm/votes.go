package swarm

import (
	"context"
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// votesNeeded is how many address groups, of one family, must name the same root
// before a manifest of strangers is believed. An IPv4 and an IPv6 group may be
// one cheap server.
const votesNeeded = 2

// concurrentVotes is how many providers are asked for their root at once.
const concurrentVotes = 4

// votes counts who has which manifest. Identities are free, addresses less so:
// a vote counts once for each address group.
type votes struct {
	mu    sync.Mutex
	roots map[chunk.Root]map[netip.Prefix]struct{}
}

func newVotes() *votes { return &votes{roots: make(map[chunk.Root]map[netip.Prefix]struct{})} }

// add counts the vote of a peer that is directly connected from addr.
func (v *votes) add(root chunk.Root, addr ma.Multiaddr) {
	group, ok := addressGroup(addr)
	if !ok {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.roots[root] == nil {
		v.roots[root] = make(map[netip.Prefix]struct{})
	}
	v.roots[root][group] = struct{}{}
}

// enough reports whether the root has the votes that it needs.
func (v *votes) enough(root chunk.Root) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	four, six := 0, 0
	for group := range v.roots[root] {
		if group.Addr().Is4() {
			four++
		} else {
			six++
		}
	}
	return max(four, six) >= votesNeeded
}

// addressGroup returns the addresses that count as one: an IPv4 /24 or IPv6
// /48, which is what one customer usually has.
func addressGroup(addr ma.Multiaddr) (netip.Prefix, bool) {
	ip, err := manet.ToIP(addr)
	if err != nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}, false
	}
	a = a.Unmap()
	bits := 48
	if a.Is4() {
		bits = 24
	}
	group, err := a.Prefix(bits)
	return group, err == nil
}

// poll asks the first providers for their root.
func (t *Transfer) poll(ctx context.Context) {
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
		t.votes.add(holdings[0].Root, addr)
	}
	return nil
}
