package p2p

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/p2p/delegated"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// statusTimeout bounds how long Status waits for the announcer.
const statusTimeout = 2 * time.Second

// Status says how a node stands in its network.
type Status struct {
	Profile Profile
	Network string
	PeerID  peer.ID
	// Listening holds the addresses of this machine, Announced what others are
	// told; neither ends in the peer ID.
	Listening, Announced []ma.Multiaddr
	// Reachability is what the node goes by, and Reach what it means.
	Reachability network.Reachability
	Reach        ReachStatus
	// DHT is nil in profile lan, and where Endpoints are asked instead.
	DHT *DHTStatus
	// Endpoints are the servers that are asked who provides what.
	Endpoints []delegated.EndpointStatus
	// Allowed is the number of peers on the allow-list, or nil where there is none.
	Allowed *int
	// Foreign counts the connections with nodes of other networks that a private
	// one has closed.
	Foreign int64
	// Paused says that nothing is shared for the time being.
	Paused bool
	// Away is the interface to the internet, where nothing is shared there, or "".
	Away string
	// Connected is the number of connected peers.
	Connected int
	// Announcing is nil where nothing is announced, and where the announcer was
	// too busy to say.
	Announcing *routing.Progress
	// Served is nil where nobody is served.
	Served *exchange.ServerStats
	// Relaying is nil where the node does not relay.
	Relaying *narhost.RelayStats
}

// DHTStatus is the node's part in the DHT.
type DHTStatus struct {
	// Server says that the node answers queries of others.
	Server bool
	// Peers is the size of the routing table.
	Peers int
}

// Status tells how the node stands; of one that does not run only what is
// configured.
func (n *Node) Status() Status {
	s := Status{Profile: n.cfg.Profile, Network: n.cfg.Network}
	if id, err := peer.IDFromPrivateKey(n.cfg.Identity); err == nil {
		s.PeerID = id
	}
	if n.allowed.Exists() {
		allowed := n.allowed.Len()
		s.Allowed = &allowed
	}
	l := n.live.Load()
	if l == nil {
		return s
	}
	s.Announced = l.host.Addrs()
	s.Reachability = l.outlook.now()
	s.Reach = l.reachStatus()
	s.Foreign = l.foreign.Load()
	s.Paused, s.Away = n.pause.reasons()
	s.Connected = len(l.host.Network().Peers())
	if addrs, err := l.host.Network().InterfaceListenAddresses(); err == nil {
		s.Listening = ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool { return a[0].Protocol().Code != ma.P_CIRCUIT })
	}
	if l.dht != nil {
		s.DHT = &DHTStatus{Server: l.dht.Serving(), Peers: l.dht.Size()}
	}
	if l.endpoints != nil {
		s.Endpoints = l.endpoints.Status()
	}
	if announcer := l.announcer.Load(); announcer != nil {
		ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
		defer cancel()
		if p, err := announcer.Progress(ctx); err == nil {
			s.Announcing = &p
		}
	}
	if l.server != nil {
		served := l.server.Stats()
		s.Served = &served
	}
	if l.cfg.Infrastructure {
		relaying := l.relayed.Stats()
		s.Relaying = &relaying
	}
	return s
}

// PeerStatus is what is known of a connected peer.
type PeerStatus struct {
	ID peer.ID
	// Addrs are those of the connections.
	Addrs []ma.Multiaddr
	// Agent is what the peer calls its software.
	Agent string
	// Exchange: the peer answers the stream protocols. LAN: it is connected on
	// the local network. Allowed: it is in the allow-list. Relayed: it is
	// connected through a relay only.
	Exchange, LAN, Allowed, Relayed bool
	// RTT is 0 where it is not known.
	RTT time.Duration
	// RestsUntil is until when it is not asked, for having lied, failed or broken the
	// protocol; zero where it is.
	RestsUntil time.Time
	// Received and Sent count bytes since the peer was first connected, or
	// since it was idle for an hour.
	Received, Sent int64
}

// Peers lists the connected peers, in the order of their IDs.
func (n *Node) Peers() []PeerStatus {
	l := n.live.Load()
	if l == nil {
		return nil
	}
	ids := l.host.Network().Peers()
	slices.Sort(ids)
	peers := make([]PeerStatus, 0, len(ids))
	for _, p := range ids {
		peers = append(peers, l.peer(p))
	}
	return peers
}

func (l *live) peer(p peer.ID) PeerStatus {
	book := l.host.Peerstore()
	traffic := l.bandwidth.GetBandwidthForPeer(p)
	s := PeerStatus{
		ID:       p,
		Exchange: l.speaks(p),
		Allowed:  l.familiar(p),
		Relayed:  true,
		RTT:      book.LatencyEWMA(p),
		Received: traffic.TotalIn,
		Sent:     traffic.TotalOut,

		RestsUntil: l.standing.RestsUntil(p),
	}
	if agent, err := book.Get(p, "AgentVersion"); err == nil {
		s.Agent, _ = agent.(string)
	}
	for _, c := range l.host.Network().ConnsToPeer(p) {
		s.Addrs = append(s.Addrs, c.RemoteMultiaddr())
		s.LAN = s.LAN || l.isLAN(c.RemoteMultiaddr())
		s.Relayed = s.Relayed && c.Stat().Limited
	}
	return s
}
