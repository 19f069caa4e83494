package host

import (
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// gater refuses connections in both directions.
type gater struct {
	// isMember tells of the peers to connect with. Nil: everyone.
	isMember func(peer.ID) bool
	// lanOnly refuses addresses beyond the local network.
	lanOnly bool
}

var _ connmgr.ConnectionGater = (*gater)(nil)

func (g *gater) member(p peer.ID) bool { return g.isMember == nil || g.isMember(p) }

func (g *gater) reachable(addr ma.Multiaddr) bool { return !g.lanOnly || IsLAN(addr) }

// InterceptPeerDial asks before a peer's addresses are looked at.
func (g *gater) InterceptPeerDial(p peer.ID) bool { return g.member(p) }

// InterceptAddrDial asks before an address is dialled.
func (g *gater) InterceptAddrDial(p peer.ID, addr ma.Multiaddr) bool {
	return g.member(p) && g.reachable(addr)
}

// InterceptAccept asks before the handshake, when only the address is known.
func (g *gater) InterceptAccept(addrs network.ConnMultiaddrs) bool {
	return g.reachable(addrs.RemoteMultiaddr())
}

// InterceptSecured asks once the peer has proved who it is.
func (g *gater) InterceptSecured(_ network.Direction, p peer.ID, addrs network.ConnMultiaddrs) bool {
	return g.member(p) && g.reachable(addrs.RemoteMultiaddr())
}

// InterceptUpgraded has nothing to add.
func (g *gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// outsiders closes connections that were made while their peers ceased to be
// members: too late for the gater, too early for DropOutsiders.
func outsiders(member func(peer.ID) bool) network.Notifiee {
	return &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if !member(c.RemotePeer()) {
			_ = c.Close() // An error means that it is lost already.
		}
	}}
}

// DropOutsiders closes the connections with peers that are no members (any
// more), and returns how many peers that were.
func DropOutsiders(h host.Host, member func(peer.ID) bool) int {
	dropped := 0
	for _, p := range h.Network().Peers() {
		if !member(p) {
			// An error means that the connection is lost already.
			_ = h.Network().ClosePeer(p)
			dropped++
		}
	}
	return dropped
}
