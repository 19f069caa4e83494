// Package site says what may be done where: a machine at home, in a VPN and on the
// Wi-Fi of a café has the same peers to deal with, and not the same reason to trust
// its neighbours.
//
// The place is the interface over which a peer is reached: the one that the kernel
// sends to it by, and the one whose address the peer has connected to, where that is
// known. Both count, since a neighbour may well send to the address of another
// interface. A relayed peer is where its relay is.
package site

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

const (
	// fresh is for how long it is believed what the kernel says of interfaces and
	// routes.
	fresh = 3 * time.Second
	// maxRoutes bounds the addresses of which that is remembered.
	maxRoutes = 1024
)

// Rule says what is not done on some interfaces.
type Rule struct {
	// Match holds patterns of names, such as "wl*", and networks, such as
	// "10.1.0.0/16", in which an address of the interface is. Loopback is matched by
	// networks only.
	Match []string
	Ban
}

// Ban is what is not done. The zero Ban allows all.
type Ban struct {
	// LAN: who is reached there is no neighbour, whatever its address. MDNS:
	// neighbours are neither looked for nor told of this node. Share: nobody is
	// answered.
	LAN, MDNS, Share bool
}

func (b Ban) with(other Ban) Ban {
	return Ban{LAN: b.LAN || other.LAN, MDNS: b.MDNS || other.MDNS, Share: b.Share || other.Share}
}

// rule is a Rule that was parsed.
type rule struct {
	patterns []string
	networks []netip.Prefix
	ban      Ban
}

// Rules are those of a node. They are safe for concurrent use; nil ones ban
// nothing.
type Rules struct {
	rules []rule
	// all is what any of them bans: where it is not known which counts.
	all Ban

	mu         sync.Mutex
	since      time.Time // of what follows
	interfaces []place
	routes     map[netip.Addr]Ban
}

// place is an interface.
type place struct {
	name     string
	loopback bool
	addrs    []netip.Addr
}

// CheckMatch reports what is wrong with an item of Rule.Match.
func CheckMatch(s string) error {
	if strings.Contains(s, "/") {
		if _, err := netip.ParsePrefix(s); err != nil {
			return errors.New("is not a network such as 10.1.0.0/16")
		}
		return nil
	}
	if _, err := path.Match(s, ""); err != nil || s == "" {
		return errors.New("is neither a pattern of names such as wl* nor a network such as 10.1.0.0/16")
	}
	return nil
}

// New returns rules of which the first that matches an interface counts. None are
// nil.
func New(rules []Rule) (*Rules, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	r := &Rules{}
	for _, given := range rules {
		parsed := rule{ban: given.Ban}
		for _, item := range given.Match {
			if err := CheckMatch(item); err != nil {
				return nil, fmt.Errorf("site: %q: %w", item, err)
			}
			if network, err := netip.ParsePrefix(item); err == nil {
				parsed.networks = append(parsed.networks, network.Masked())
			} else {
				parsed.patterns = append(parsed.patterns, item)
			}
		}
		r.rules = append(r.rules, parsed)
		r.all = r.all.with(given.Ban)
	}
	return r, nil
}

// BansSharing reports whether some rule does.
func (r *Rules) BansSharing() bool { return r != nil && r.all.Share }

// matches reports whether a rule is for an interface, of which one address counts.
func (r *rule) matches(p place, addr netip.Addr) bool {
	if !p.loopback && slices.ContainsFunc(r.patterns, func(pattern string) bool { ok, _ := path.Match(pattern, p.name); return ok }) {
		return true
	}
	return slices.ContainsFunc(r.networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// at returns what is banned at a place.
func (r *Rules) at(p place, addr netip.Addr) Ban {
	for i := range r.rules {
		if r.rules[i].matches(p, addr) {
			return r.rules[i].ban
		}
	}
	return Ban{}
}

// Interface returns what is banned on an interface.
func (r *Rules) Interface(i *net.Interface) Ban {
	if r == nil {
		return Ban{}
	}
	p := newPlace(i)
	ban := r.at(p, netip.Addr{})
	for _, addr := range p.addrs {
		ban = ban.with(r.at(p, addr))
	}
	return ban
}

// Local returns what is banned at an address of this machine.
func (r *Rules) Local(addr ma.Multiaddr) Ban {
	if r == nil {
		return Ban{}
	}
	ip, ok := firstIP(addr)
	if !ok {
		return r.all
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.local(ip)
}

// Conn returns what is banned on a connection between these addresses.
func (r *Rules) Conn(local, remote ma.Multiaddr) Ban {
	if r == nil {
		return Ban{}
	}
	ban := r.Remote(remote)
	// QUIC does not tell, and of a relayed connection it is nobody's address.
	if ip, ok := firstIP(local); ok && !ip.IsUnspecified() {
		ban = ban.with(r.Local(local))
	}
	return ban
}

// Remote returns what is banned where the kernel sends to an address by.
func (r *Rules) Remote(addr ma.Multiaddr) Ban {
	if r == nil {
		return Ban{}
	}
	ip, ok := firstIP(addr)
	if !ok {
		return r.all
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh()
	if ban, known := r.routes[ip]; known {
		return ban
	}
	ban := r.all
	if local, ok := route(ip); ok {
		ban = r.local(local)
	}
	if len(r.routes) < maxRoutes {
		r.routes[ip] = ban
	}
	return ban
}

// Outward returns the interface that leads to the internet, "" where none does,
// and what is banned there.
func (r *Rules) Outward() (name string, ban Ban) {
	if r == nil {
		return "", Ban{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh()
	// Addresses for documentation: nothing is sent.
	for _, ip := range []string{"192.0.2.1", "2001:db8::1"} {
		local, ok := route(netip.MustParseAddr(ip))
		if !ok {
			continue
		}
		for _, p := range r.interfaces {
			if slices.Contains(p.addrs, local) {
				return p.name, r.at(p, local)
			}
		}
	}
	return "", Ban{}
}

// local returns what is banned at an address of this machine; mu is held.
func (r *Rules) local(ip netip.Addr) Ban {
	r.refresh()
	for _, p := range r.interfaces {
		if slices.Contains(p.addrs, ip) || p.loopback && ip.IsLoopback() {
			return r.at(p, ip)
		}
	}
	return r.all // it has just gone, or come
}

// refresh asks the kernel anew where that is due; mu is held.
func (r *Rules) refresh() {
	if time.Since(r.since) < fresh {
		return
	}
	r.since, r.interfaces, r.routes = time.Now(), nil, make(map[netip.Addr]Ban)
	all, _ := net.Interfaces() // without them all that any rule bans is banned
	for i := range all {
		r.interfaces = append(r.interfaces, newPlace(&all[i]))
	}
}

func newPlace(i *net.Interface) place {
	p := place{name: i.Name, loopback: i.Flags&net.FlagLoopback != 0}
	addrs, _ := i.Addrs() // one that has gone meanwhile has none
	for _, addr := range addrs {
		if prefix, err := netip.ParsePrefix(addr.String()); err == nil {
			p.addrs = append(p.addrs, prefix.Addr().Unmap())
		}
	}
	return p
}

// route returns the address from which the kernel would send to another one.
// Nothing is sent.
func route(ip netip.Addr) (netip.Addr, bool) {
	const discard = 9 // a port must be given
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, discard)))
	if err != nil {
		return netip.Addr{}, false
	}
	defer c.Close()
	local, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	return local.AddrPort().Addr().Unmap().WithZone(""), true
}

// firstIP returns the IP at which an address begins: that of a relay, if it leads
// through one.
func firstIP(addr ma.Multiaddr) (netip.Addr, bool) {
	zone := ""
	for _, c := range addr {
		switch c.Protocol().Code {
		case ma.P_IP6ZONE:
			zone = c.Value()
		case ma.P_IP4, ma.P_IP6:
			ip, ok := netip.AddrFromSlice(c.RawValue())
			if ip.IsLinkLocalUnicast() && ip.Is6() {
				return ip.WithZone(zone), ok
			}
			return ip.Unmap(), ok
		default:
			return netip.Addr{}, false
		}
	}
	return netip.Addr{}, false
}
