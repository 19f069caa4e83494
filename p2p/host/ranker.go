package host

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// lanTCPDelay is how long IPv4 waits for IPv6, and lanOtherDelay how long QUIC
// waits for TCP, on a local network, where a handshake takes a few
// milliseconds. TCP with TLS carries four times as much as QUIC there.
const (
	lanTCPDelay   = 10 * time.Millisecond
	lanOtherDelay = 100 * time.Millisecond
)

// rankDials orders the dials to one peer. libp2p's own order prefers QUIC
// everywhere; this one prefers TCP on the local network and leaves the rest as
// it is.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	var lan, rest []ma.Multiaddr
	for _, addr := range addrs {
		if IsLAN(addr) {
			lan = append(lan, addr)
		} else {
			rest = append(rest, addr)
		}
	}
	ranked := make([]network.AddrDelay, 0, len(addrs))
	for _, addr := range lan {
		var delay time.Duration
		switch {
		case !hasProtocol(addr, ma.P_TCP):
			delay = lanOtherDelay
		case hasProtocol(addr, ma.P_IP4) && slices.ContainsFunc(lan, isTCP6):
			delay = lanTCPDelay
		}
		ranked = append(ranked, network.AddrDelay{Addr: addr, Delay: delay})
	}
	return append(ranked, swarm.DefaultDialRanker(rest)...)
}

func isTCP6(addr ma.Multiaddr) bool {
	return hasProtocol(addr, ma.P_TCP) && hasProtocol(addr, ma.P_IP6)
}

func hasProtocol(addr ma.Multiaddr, code int) bool {
	return slices.ContainsFunc(addr, func(c ma.Component) bool { return c.Protocol().Code == code })
}
