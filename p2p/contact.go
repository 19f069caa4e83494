package p2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"github.com/nar-p2p/nar-p2p/p2p/banned"
)

// What the owner does with single peers.

var (
	// ErrBanned says that the peer is banned.
	ErrBanned = errors.New("the peer is banned")
	// ErrNotMember says that there is an allow-list, and that the peer is not on it.
	ErrNotMember = errors.New("the allow-list of this network does not name the peer")
	// errSelf says that a node was to deal with itself.
	errSelf = errors.New("that is this node")
)

// Connect connects with a peer, at addresses that are known of it or given, also
// through a relay.
func (n *Node) Connect(ctx context.Context, info peer.AddrInfo) error {
	l, err := n.partner(info.ID)
	if err != nil {
		return err
	}
	return l.host.Connect(network.WithAllowLimitedConn(ctx, "nar-p2p"), info)
}

// Ping measures one round trip to a peer, with which it connects if need be.
func (n *Node) Ping(ctx context.Context, p peer.ID) (time.Duration, error) {
	l, err := n.partner(p)
	if err != nil {
		return 0, err
	}
	return l.roundTrip(ctx, p, 1)
}

// roundTrip measures a few round trips over one stream, of which peers allow few, and
// returns the shortest.
func (l *live) roundTrip(ctx context.Context, p peer.ID, times int) (shortest time.Duration, err error) {
	ctx, cancel := context.WithCancel(network.WithAllowLimitedConn(ctx, "nar-p2p"))
	defer cancel()
	results := ping.Ping(ctx, l.host, p)
	for range times {
		select {
		case result, ok := <-results:
			switch {
			case !ok:
				return 0, context.Cause(ctx)
			case result.Error != nil:
				return 0, result.Error
			case shortest == 0 || result.RTT < shortest:
				shortest = result.RTT
			}
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	return shortest, nil
}

// partner returns the node where it runs and may deal with the peer.
func (n *Node) partner(p peer.ID) (*live, error) {
	l := n.live.Load()
	switch {
	case l == nil:
		return nil, ErrNotRunning
	case p == l.host.ID():
		return nil, errSelf
	case n.bans.Banned(p):
		return nil, ErrBanned
	case !n.member(p):
		return nil, ErrNotMember
	}
	return l, nil
}

// Ban ends all connections with a peer and refuses new ones, until a time or, if
// that is zero, until it is taken back. It outlives a restart.
func (n *Node) Ban(ctx context.Context, p peer.ID, until time.Time) error {
	if id, err := peer.IDFromPrivateKey(n.cfg.Identity); err == nil && id == p {
		return errSelf
	}
	if err := n.bans.Add(ctx, banned.Ban{Peer: p, Until: until}); err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	if l := n.live.Load(); l != nil {
		_ = l.host.Network().ClosePeer(p) // An error means that the connection is lost already.
	}
	return nil
}

// Unban takes a ban back, and reports whether there was one.
func (n *Node) Unban(ctx context.Context, p peer.ID) (was bool, err error) {
	return n.bans.Remove(ctx, p)
}

// Bans returns who is banned.
func (n *Node) Bans() []banned.Ban { return n.bans.All() }
