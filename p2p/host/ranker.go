package host

import (
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
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

// maxProviders is how many addresses of providers are kept in mind: those of some
// hundred peers.
const maxProviders = 1024

// Providers is the addresses of peers that are dialled to send NARs. It is safe for
// concurrent use.
type Providers struct{ addrs *lru.Cache[string, struct{}] }

// NewProviders returns a Providers without an address.
func NewProviders() *Providers {
	addrs, err := lru.New[string, struct{}](maxProviders)
	if err != nil {
		panic("host: " + err.Error()) // only for a size that is not positive
	}
	return &Providers{addrs}
}

// Add takes note of a provider's addresses.
func (p *Providers) Add(addrs []ma.Multiaddr) {
	for _, addr := range addrs {
		p.addrs.Add(string(addr.Bytes()), struct{}{})
	}
}

func (p *Providers) has(addr ma.Multiaddr) bool {
	return p != nil && p.addrs.Contains(string(addr.Bytes()))
}

// dialRanker returns what orders the dials to one peer. libp2p's own order prefers
// QUIC everywhere, which takes a round trip to connect where TCP with TLS takes
// three, and carries a quarter of what that does for the same work. So TCP is
// preferred on the local network; and everywhere to whoever is dialled to send
// NARs, as all are in a private network. In the public one most other peers are
// asked one question of the DHT.
//
// Relays are an exception for a node that may be behind a NAT. How its UDP is seen
// from outside, without which no hole can be punched with QUIC, only they can tell
// it, and those only whom it is connected with over QUIC; and most routers let no
// hole be punched with TCP.
func dialRanker(private bool, providers *Providers, relays []peer.AddrInfo, behindNAT func() bool) network.DialRanker {
	relay := make(map[string]struct{})
	for _, info := range relays {
		for _, addr := range info.Addrs {
			relay[string(addr.Bytes())] = struct{}{}
		}
	}
	isRelay := func(addr ma.Multiaddr) bool {
		_, ok := relay[string(addr.Bytes())]
		return ok
	}
	return func(addrs []ma.Multiaddr) []network.AddrDelay {
		asksRelay := slices.ContainsFunc(addrs, isRelay) && behindNAT()
		everywhere := (private || slices.ContainsFunc(addrs, providers.has)) && !asksRelay
		var lan, far, rest []ma.Multiaddr
		for _, addr := range addrs {
			switch {
			case IsLAN(addr):
				lan = append(lan, addr)
			case everywhere && IsDirect(addr):
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
