package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// LAN makes a local network without hosts, of private addresses: the n-th one of
// a test.
func (l *Lab) LAN(n int) *Segment {
	l.t.Helper()
	return l.segment(fmt.Sprintf("192.168.%d", n), 24)
}

// Join connects two LANs by a router, which passes no multicast on.
func (s *Segment) Join(other *Segment) {
	s.lab.t.Helper()
	router := s.namespace("router")
	for i, side := range []*Segment{s, other} {
		port, eth := "router", fmt.Sprintf("eth%d", i)
		s.lab.ip("link", "add", eth, "netns", router, "type", "veth", "peer", "name", port, "netns", side.sw)
		s.lab.ip("-n", side.sw, "link", "set", port, "master", "br0", "up")
		s.lab.ip("-n", router, "addr", "add", fmt.Sprintf("%s.254/%d", side.net, side.bits), "dev", eth)
		s.lab.ip("-n", router, "link", "set", eth, "up")
	}
	// Hosts take everything for local, so the router answers for what is not.
	for _, setting := range []string{"ip_forward", "conf.all.proxy_arp"} {
		s.lab.set(router, "net.ipv4."+setting)
	}
}

// NoIPv6 switches IPv6 off on a host, as some administrators do.
func (h *Host) NoIPv6() { h.segment.lab.set(h.ns, "net.ipv6.conf.all.disable_ipv6") }

// Silence takes the host off its network without a word: the link stays up, and
// nothing comes through.
func (h *Host) Silence() { h.segment.lab.ip("-n", h.segment.sw, "link", "set", h.port, "nomaster") }

// Unsilence undoes Silence.
func (h *Host) Unsilence() {
	h.segment.lab.ip("-n", h.segment.sw, "link", "set", h.port, "master", "br0")
}

// DropAddr takes the host's IPv4 address from it.
func (h *Host) DropAddr() { h.segment.lab.ip("-n", h.ns, "-4", "addr", "flush", "dev", "eth0") }

// Readdress gives the host another address, which its daemons are not told of.
func (h *Host) Readdress() {
	s := h.segment
	s.hosts++
	h.DropAddr()
	h.Addr = fmt.Sprintf("%s.%d", s.net, s.hosts)
	s.lab.ip("-n", h.ns, "addr", "add", fmt.Sprintf("%s/%d", h.Addr, s.bits), "dev", "eth0")
	h.route()
}

// Slow limits what the host sends to a rate, in bits per second.
func (h *Host) Slow(rate int) {
	h.segment.lab.run("ip", "netns", "exec", h.ns, "tc", "qdisc", "replace", "dev", "eth0", "root",
		"tbf", "rate", fmt.Sprint(rate), "burst", "64kb", "latency", "200ms")
}

// set sets a kernel parameter of a namespace to 1.
func (l *Lab) set(ns, parameter string) {
	l.t.Helper()
	l.run("ip", "netns", "exec", ns, "sh", "-c", "echo 1 >/proc/sys/"+strings.ReplaceAll(parameter, ".", "/"))
}

func (l *Lab) run(program string, args ...string) {
	l.t.Helper()
	cmd := exec.CommandContext(context.Background(), program, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("lab: %s: %v\n%s", cmd, err, out)
	}
}

// NoMDNS keeps the host's own mDNS from being heard, as many networks of offices
// do, by the host itself too.
func (h *Host) NoMDNS() {
	h.lab.t.Helper()
	h.nft("table inet mdns { chain out { type filter hook output priority filter; udp dport 5353 drop; }\n}\n")
}
