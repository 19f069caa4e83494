package host

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	ma "github.com/multiformats/go-multiaddr"
)

// punchTCPDelay is how long TCP lets QUIC go first when a hole is punched: more than
// most round trips, and little of punchDialTimeout.
const punchTCPDelay = 500 * time.Millisecond

// lateTCP is libp2p's TCP that comes later than QUIC where a hole is punched.
//
// There both sides dial both at once, keep what is connected first, and close what
// comes after. Where one side has TCP first and the other QUIC, each closes what the
// other keeps, and they are left with nothing.
type lateTCP struct{ *tcp.TcpTransport }

var (
	_ transport.Transport   = (*lateTCP)(nil)
	_ transport.DialUpdater = (*lateTCP)(nil)
)

func newLateTCP(upgrader transport.Upgrader, limits network.ResourceManager, shared *tcpreuse.ConnMgr) (*lateTCP, error) {
	t, err := tcp.NewTCPTransport(upgrader, limits, shared)
	if err != nil {
		return nil, err
	}
	return &lateTCP{t}, nil
}

// Dial implements transport.Transport.
func (t *lateTCP) Dial(ctx context.Context, addr ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	return t.DialWithUpdates(ctx, addr, p, nil)
}

// DialWithUpdates implements transport.DialUpdater.
func (t *lateTCP) DialWithUpdates(ctx context.Context, addr ma.Multiaddr, p peer.ID, updates chan<- transport.DialUpdate) (transport.CapableConn, error) {
	if punched, _, _ := network.GetSimultaneousConnect(ctx); punched {
		select {
		case <-time.After(punchTCPDelay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return t.TcpTransport.DialWithUpdates(ctx, addr, p, updates)
}
