package lab

import (
	"fmt"
	"strings"
)

// NAT is a router between a network, on whose side it is a host, and a home
// network behind it, to which it gives addresses of its own: those of IPv4 are
// translated. As a home router does, it lets nothing in that was not asked for,
// and drops it without a word.
//
// Homes have the same addresses, as they do in reality.
type NAT struct {
	*Segment
	// Router is the NAT as its outer network sees it.
	Router *Host
	// kind is how it translates.
	kind NATConfig
	// upnp is nil where the router has none.
	upnp *upnp
}

// NATConfig says what kind of NAT a router is. The zero value gives a flow from one
// inner address and port the same outer one whomever it goes to, as most home
// routers do (endpoint-independent mapping, RFC 4787), and lets in only answers.
type NATConfig struct {
	// RandomPorts gives each flow an outer port of its own, chosen at random, so
	// that nobody can be told it beforehand.
	RandomPorts bool
	// BlockUDP lets no UDP through in either direction.
	BlockUDP bool
	// MapsPorts lets hosts ask for a port by NAT-PMP (RFC 6886).
	MapsPorts bool
	// UPnP lets them ask by UPnP alone.
	UPnP bool
	// IPv6 gives the home public addresses of IPv6 too, which are not translated;
	// what was not asked for is kept out all the same. The outer network must be
	// one of public addresses.
	IPv6 bool
}

// rules are the router's for nftables.
func (c NATConfig) rules() string {
	var b strings.Builder
	random, udp := "", ""
	if c.RandomPorts {
		random = " fully-random"
	}
	if c.BlockUDP {
		udp = "meta l4proto udp drop"
	}
	fmt.Fprintf(&b, `table ip nat {
  map forwarded { type inet_proto . inet_service : ipv4_addr . inet_service; }
  chain pre {
    type nat hook prerouting priority dstnat;
    iifname "eth0" dnat ip to meta l4proto . th dport map @forwarded
  }
  chain post {
    type nat hook postrouting priority srcnat;
    oifname "eth0" masquerade%s
  }
}
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname "eth1" accept
    meta l4proto ipv6-icmp accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    %s
    ct state established,related accept
    iifname "eth1" accept
    ct status dnat accept
  }
}
`, random, udp)
	return b.String()
}

// NAT puts a router on the segment with an empty home network behind it.
func (s *Segment) NAT(name string, kind NATConfig) *NAT {
	s.lab.t.Helper()
	n := &NAT{Router: s.Host(name), kind: kind}
	// Of two NATs one behind the other the homes must differ.
	n.Segment = s.lab.segment(fmt.Sprintf("192.168.%d", s.depth+1), 24)
	n.depth = s.depth + 1
	n.gateway = n.net + ".254"
	router := n.Router.ns
	s.lab.ip("link", "add", "eth1", "netns", router, "type", "veth", "peer", "name", "router", "netns", n.sw)
	s.lab.ip("-n", n.sw, "link", "set", "router", "master", "br0", "up")
	s.lab.ip("-n", router, "addr", "add", n.gateway+"/24", "dev", "eth1")
	s.lab.ip("-n", router, "link", "set", "eth1", "up")
	s.lab.set(router, "net.ipv4.ip_forward")
	n.Router.nft(kind.rules())
	if kind.IPv6 {
		n.routeIPv6(s)
	}
	if kind.MapsPorts {
		n.mapPorts()
	}
	if kind.UPnP {
		n.runUPnP()
	}
	return n
}

// routeIPv6 gives the home a prefix, and tells the hosts of the outer network the
// way to it.
func (n *NAT) routeIPv6(outer *Segment) {
	l := n.lab
	outer.homes++
	n.prefix6 = fmt.Sprintf("%s:%d:", publicIPv6, outer.homes)
	n.gateway6 = n.prefix6 + ":fffe"
	l.ip("-n", n.Router.ns, "addr", "add", n.gateway6+"/64", "dev", "eth1", "nodad")
	l.set(n.Router.ns, "net.ipv6.conf.all.forwarding")
	route := []string{n.prefix6 + ":/64", "via", n.Router.Addr6}
	outer.routes6 = append(outer.routes6, route)
	for _, h := range outer.members {
		h.routeIPv6(route)
	}
}

// routeIPv6 tells a host the way to a home, unless it is the way.
func (h *Host) routeIPv6(route []string) {
	if via := route[len(route)-1]; via != h.Addr6 {
		h.lab.ip(append([]string{"-n", h.ns, "-6", "route", "replace"}, route...)...)
	}
}

// Forward lets flows of a protocol, "tcp" or "udp", to a port of the router in, to
// the same port of a host of the home, as somebody who knows the router's
// password would.
func (n *NAT) Forward(protocol string, port int, to *Host) {
	n.lab.t.Helper()
	n.Router.nft(fmt.Sprintf("add element ip nat forwarded { %s . %d : %s . %d }\n", protocol, port, to.Addr, port))
}

// Restart makes the router forget all flows that there are: packets of those that
// go on are taken for new ones.
func (n *NAT) Restart() {
	n.lab.t.Helper()
	// What is masqueraded is forgotten when its interface goes.
	n.Router.Unplug()
	n.Router.Plug()
}

// Readdress gives the router another outer address, as some providers do every
// night, and makes it forget all flows.
func (n *NAT) Readdress() {
	n.lab.t.Helper()
	n.Router.Readdress()
}

// Firewall has the host let in what answers it and what comes for a port, and drop all
// else, as many distributions have it.
func (h *Host) Firewall(port int) {
	h.lab.t.Helper()
	h.nft(fmt.Sprintf(`table inet firewall {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname "lo" accept
    meta l4proto { tcp, udp } th dport %d accept
    meta l4proto ipv6-icmp accept
  }
}
`, port))
}

// nft loads rules into the kernel of the host.
func (h *Host) nft(rules string) {
	h.lab.t.Helper()
	cmd := h.Command(h.lab.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.lab.t.Fatalf("lab: nft: %v\n%s\n%s", err, out, rules)
	}
}
