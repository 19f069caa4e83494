package host

import (
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// gater refuses connections in both directions.
type gater struct {
	// members are the only peers to connect with. Nil: everyone.
	members map[peer.ID]struct{}
	// lanOnly refuses addresses beyond the local network.
	lanOnly bool
}

var _ connmgr.ConnectionGater = (*gater)(nil)

func (g *gater) member(p peer.ID) bool {
	_, ok := g.members[p]
	return g.members == nil || ok
}

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
