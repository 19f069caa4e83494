// Package netgroup says which addresses count as one: identities are free,
// addresses less so.
package netgroup

import (
	"net/netip"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// What one customer usually has.
const (
	ip4Bits = 24
	ip6Bits = 48
)

// Of returns the group of an address, or false where it is not one of IP.
func Of(addr ma.Multiaddr) (netip.Prefix, bool) { return Within(addr, ip4Bits, ip6Bits) }

// Within returns the network that an address is in, of so many bits of IPv4 or IPv6, or
// false where it is not one of IP.
func Within(addr ma.Multiaddr, of4, of6 int) (netip.Prefix, bool) {
	ip, err := manet.ToIP(addr)
	if err != nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}, false
	}
	bits := of6
	if a = a.Unmap(); a.Is4() {
		bits = of4
	}
	network, err := a.Prefix(bits)
	return network, err == nil
}

// Far is Of for an address beyond the local network, where many are behind few
// addresses: those of the local network have no group.
func Far(addr ma.Multiaddr) (netip.Prefix, bool) {
	if manet.IsPrivateAddr(addr) || manet.IsIPLoopback(addr) {
		return netip.Prefix{}, false
	}
	return Of(addr)
}
