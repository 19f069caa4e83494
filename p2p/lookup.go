package p2p

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

var (
	// ErrNotRunning says that Run does not run.
	ErrNotRunning = errors.New("p2p: the node is not running")
	// ErrNotAnnouncing says that the DHT is told nothing: by the node's profile, or
	// while sharing is paused.
	ErrNotAnnouncing = errors.New("p2p: this node announces nothing")
)

// providerBook is an address book of those who are found to provide something.
type providerBook struct {
	peerstore.Peerstore

	providers *narhost.Providers
}

// AddAddrs takes note of a provider's addresses, before it is dialled.
func (b providerBook) AddAddrs(p peer.ID, addrs []ma.Multiaddr, ttl time.Duration) {
	b.providers.Add(addrs)
	b.Peerstore.AddAddrs(p, addrs, ttl)
}

// Expect starts to look for the holders of a NAR that will probably be asked
// for.
func (n *Node) Expect(h nix.NARHash, strangers bool) {
	if l := n.live.Load(); l != nil {
		l.finder.Expect(h, n.strangers(strangers))
	}
}

// Glance is like Expect, but nobody is searched for.
func (n *Node) Glance(h nix.NARHash, strangers bool) {
	if l := n.live.Load(); l != nil {
		l.finder.Glance(h, n.strangers(strangers))
	}
}

// Dismiss says that a NAR is not expected any more: it has arrived, or nobody
// wants it.
func (n *Node) Dismiss(h nix.NARHash) {
	if l := n.live.Load(); l != nil {
		l.finder.Dismiss(h)
	}
}

// Known reports whether a holder of the NAR is known already.
func (n *Node) Known(h nix.NARHash) bool {
	l := n.live.Load()
	return l != nil && l.finder.Known(h)
}

// Estimate says what to expect of the peers that are known to hold the NAR. It
// asks nobody.
func (n *Node) Estimate(h nix.NARHash) swarm.Estimate {
	if l := n.live.Load(); l != nil {
		return l.swarm.Estimate(h)
	}
	return swarm.Estimate{}
}

// Open fetches a NAR from peers.
func (n *Node) Open(ctx context.Context, want swarm.Want) (*swarm.Transfer, error) {
	l := n.live.Load()
	if l == nil {
		return nil, ErrNotRunning
	}
	want.Strangers = n.strangers(want.Strangers)
	return l.swarm.Open(ctx, want)
}

// Manifest asks peers for the manifest of a NAR, and for nothing of the NAR.
func (n *Node) Manifest(ctx context.Context, want swarm.Want) (*chunk.Manifest, error) {
	l := n.live.Load()
	if l == nil {
		return nil, ErrNotRunning
	}
	want.Strangers = n.strangers(want.Strangers)
	return l.swarm.Manifest(ctx, want)
}

// strangers adapts what a caller allows to the network: a private one has no
// strangers, so that all of its peers may always be asked.
func (n *Node) strangers(allowed bool) bool { return allowed || n.cfg.private() }

// Announce tells the DHT of the paths now and reports the outcome. That they
// stay announced is up to the shelf, which the node follows: what leaves it is
// no longer announced.
func (n *Node) Announce(ctx context.Context, paths ...share.Key) error {
	l := n.live.Load()
	if l == nil {
		return ErrNotRunning
	}
	announcer := l.announcer.Load()
	if announcer == nil {
		return ErrNotAnnouncing
	}
	return announcer.Provide(ctx, paths...)
}

// Narinfos gives the answers of peers for a store path as they come, each peer
// once, until all have answered or ctx ends. The records are unverified.
func (n *Node) Narinfos(ctx context.Context, part nix.HashPart, strangers bool) iter.Seq[*narinfo.Info] {
	l := n.live.Load()
	if l == nil {
		return func(func(*narinfo.Info) bool) {}
	}
	return l.finder.Narinfos(ctx, part, n.strangers(strangers))
}
