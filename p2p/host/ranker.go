package host

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// How long IPv4 waits for IPv6, and QUIC for TCP: on a local network, where a
// handshake takes a few milliseconds, and elsewhere, where RFC 8305 has 250 ms for
// the next address.
const (
	lanIP4Delay  = 10 * time.Millisecond
	lanQUICDelay = 100 * time.Millisecond
	farIP4Delay  = 50 * time.Millisecond
	farQUICDelay = 250 * time.Millisecond
)

// dialRanker returns what orders the dials to one peer. libp2p's own order prefers
// QUIC everywhere, which takes a round trip to connect where TCP with TLS takes
// three, and carries a quarter of what that does for the same work. So TCP is
// preferred on the local network; and in a private network, where whoever is
// dialled is there to send NARs, everywhere. In the public one most peers are
// asked one question of the DHT.
func dialRanker(private bool) network.DialRanker {
	return func(addrs []ma.Multiaddr) []network.AddrDelay {
		var lan, far, rest []ma.Multiaddr
		for _, addr := range addrs {
			switch {
			case IsLAN(addr):
				lan = append(lan, addr)
			case private && IsDirect(addr):
				far = append(far, addr)
			default:
				rest = append(rest, addr)
			}
		}
		ranked := append(tcpFirst(lan, lanIP4Delay, lanQUICDelay), tcpFirst(far, farIP4Delay, farQUICDelay)...)
		for _, other := range swarm.DefaultDialRanker(rest) {
			if len(far) > 0 {
				other.Delay += swarm.RelayDelay // nothing else is left
			}
			ranked = append(ranked, other)
		}
		return ranked
	}
}

// tcpFirst has IPv4 and QUIC wait.
func tcpFirst(addrs []ma.Multiaddr, ip4, quic time.Duration) []network.AddrDelay {
	ranked := make([]network.AddrDelay, 0, len(addrs))
	for _, addr := range addrs {
		var delay time.Duration
		switch {
		case !hasProtocol(addr, ma.P_TCP):
			delay = quic
		case hasProtocol(addr, ma.P_IP4) && slices.ContainsFunc(addrs, isTCP6):
			delay = ip4
		}
		ranked = append(ranked, network.AddrDelay{Addr: addr, Delay: delay})
	}
	return ranked
}

func isTCP6(addr ma.Multiaddr) bool {
	return hasProtocol(addr, ma.P_TCP) && hasProtocol(addr, ma.P_IP6)
}

func hasProtocol(addr ma.Multiaddr, code int) bool {
	return slices.ContainsFunc(addr, func(c ma.Component) bool { return c.Protocol().Code == code })
}
