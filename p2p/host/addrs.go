package host

import (
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// IsLAN reports whether the address is one of the local network: private (RFC
// 1918, RFC 4193), loopback or link-local, and not through a relay. The shared
// space of carriers (100.64.0.0/10, RFC 6598) is not: other customers are
// there.
func IsLAN(addr ma.Multiaddr) bool {
	ip, ok := directIP(addr)
	return ok && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast())
}

// IsLoopback reports whether the address is one of this machine alone.
func IsLoopback(addr ma.Multiaddr) bool {
	ip, ok := directIP(addr)
	return ok && ip.IsLoopback()
}

// carriers is the address space of those who translate addresses for many (RFC 6598).
var carriers = netip.MustParsePrefix("100.64.0.0/10")

// IsTranslated reports whether an address is one of those that a NAT gives.
func IsTranslated(addr netip.Addr) bool { return addr.IsPrivate() || carriers.Contains(addr) }

// OnlyLoopback reports whether there are addresses and all are loopback: a node
// that listens on these is a test or a demonstration.
func OnlyLoopback(addrs []ma.Multiaddr) bool {
	for _, addr := range addrs {
		if !IsLoopback(addr) {
			return false
		}
	}
	return len(addrs) > 0
}

// HasPublicIPv4 reports whether a host listens at a public IPv4 address, and so
// knows how others see it. One of IPv6 says little: there is a firewall before most.
func HasPublicIPv4(n network.Network) bool {
	addrs, err := manet.ResolveUnspecifiedAddresses(n.ListenAddresses(), nil)
	return err == nil && slices.ContainsFunc(addrs, func(addr ma.Multiaddr) bool {
		return hasProtocol(addr, ma.P_IP4) && manet.IsPublicAddr(addr)
	})
}

// Announced is the filter of the addresses that a node which listens on listen
// tells others. Loopback is left out, as it means another machine to each who
// hears it, unless the node listens on nothing else. Link-local IPv6 addresses
// are left out always: without a zone nobody can dial them.
func Announced(listen []ma.Multiaddr) func([]ma.Multiaddr) []ma.Multiaddr {
	loopback := OnlyLoopback(listen)
	return func(addrs []ma.Multiaddr) []ma.Multiaddr {
		return ma.FilterAddrs(addrs, func(addr ma.Multiaddr) bool {
			ip, ok := directIP(addr)
			return !ok || !ip.IsUnspecified() && (loopback || !ip.IsLoopback()) && (ip.Is4() || !ip.IsLinkLocalUnicast())
		})
	}
}

// Direct leaves out the addresses that lead through a relay.
func Direct(addrs []ma.Multiaddr) []ma.Multiaddr {
	return ma.FilterAddrs(addrs, func(addr ma.Multiaddr) bool { return !IsRelayed(addr) })
}

// WithoutQUIC leaves out the addresses that a pre-shared key cannot protect: QUIC
// encrypts by itself.
func WithoutQUIC(addrs []ma.Multiaddr) (left, dropped []ma.Multiaddr) {
	for _, addr := range addrs {
		if hasProtocol(addr, ma.P_UDP) {
			dropped = append(dropped, addr)
		} else {
			left = append(left, addr)
		}
	}
	return left, dropped
}

// IsRelayed reports whether the address leads through a relay.
func IsRelayed(addr ma.Multiaddr) bool {
	_, err := addr.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// IsDirect reports whether the address leads to the peer itself and not through
// a relay.
func IsDirect(addr ma.Multiaddr) bool { return len(addr) > 0 && !IsRelayed(addr) }

// directIP returns the address's IP, unless it is a relay's.
func directIP(addr ma.Multiaddr) (netip.Addr, bool) {
	if len(addr) == 0 || IsRelayed(addr) {
		return netip.Addr{}, false
	}
	first := addr[0]
	if first.Protocol().Code == ma.P_IP6ZONE && len(addr) > 1 {
		first = addr[1]
	}
	switch first.Protocol().Code {
	case ma.P_IP4, ma.P_IP6:
		ip, ok := netip.AddrFromSlice(first.RawValue())
		return ip.Unmap(), ok
	default:
		return netip.Addr{}, false
	}
}
