package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/p2p/host/autonat"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
)

// Up to maxDialBacks peers are asked to dial the node back, each for dialBackTimeout.
const (
	maxDialBacks    = 3
	dialBackTimeout = 15 * time.Second
)

// gainedPublicAddr reports whether the node has got another public address, such as
// that of a port which the router has mapped.
func gainedPublicAddr(e event.EvtLocalAddressesUpdated) bool {
	for _, a := range e.Current {
		if a.Action == event.Added && narhost.IsDirect(a.Address) && manet.IsPublicAddr(a.Address) {
			return true
		}
	}
	return false
}

// dialledBack reports whether somebody can connect with the node, as peers find out
// when they are asked to (AutoNAT, version 1). Libp2p asks them by itself, but for a
// port that a router has mapped a moment after it did, only a minute and a half later.
func (l *live) dialledBack(ctx context.Context) bool {
	client := autonat.NewAutoNATClient(l.host, func() []ma.Multiaddr { return narhost.Direct(l.host.Addrs()) }, nil)
	asked := 0
	for _, p := range l.host.Network().Peers() {
		spoken, err := l.host.Peerstore().SupportsProtocols(p, autonat.AutoNATProto)
		if err != nil || len(spoken) == 0 {
			continue
		}
		if asked++; asked > maxDialBacks {
			break
		}
		ctx, cancel := context.WithTimeout(ctx, dialBackTimeout)
		err = client.DialBack(ctx, p)
		cancel()
		if err == nil {
			return true
		}
	}
	return false
}
