package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
)

// Host is a machine of the lab: a network namespace with an address of its
// own. The nil Host is this machine, on loopback.
type Host struct {
	// Addr is the host's IPv4 address.
	Addr string
	// LAN is another one, of a local network that is the same segment; see JoinLAN.
	LAN string
	// Addr6 is its IPv6 address, where the segment has such.
	Addr6 string
	lab   *Lab
	ns    string
	// segment and port are where the host's cable ends.
	segment *Segment
	port    string
}

// Segment is a network of hosts that see each other and nothing else. Its
// addresses exist only inside the segment's own namespaces.
type Segment struct {
	lab    *Lab
	prefix string
	sw     string
	hosts  int
	// net is the first three bytes of all addresses, bits the length of the
	// network's prefix.
	net  string
	bits int
	// gateway is the router of a home network, "" elsewhere, and depth how many
	// NATs it is behind.
	gateway string
	depth   int
	// prefix6 begins the hosts' IPv6 addresses, "" for none; gateway6 is the router
	// for these. routes6 lead to the homes that have some, of which there are homes,
	// and members are the hosts that have to know.
	prefix6, gateway6 string
	routes6           [][]string
	homes             int
	members           []*Host
}

var segments atomic.Int32

// Segment makes a network without hosts, of addresses that count as public for
// libp2p. It needs root, or the right to make network namespaces.
func (l *Lab) Segment() *Segment {
	l.t.Helper()
	return l.segment("11.0.0", 16)
}

// publicIPv6 begins the IPv6 addresses of an Internet, which count as public.
const publicIPv6 = "2a0a:11:0"

// Internet is Segment, whose hosts have IPv6 addresses too.
func (l *Lab) Internet() *Segment {
	l.t.Helper()
	s := l.Segment()
	s.prefix6 = publicIPv6 + ":0:"
	return s
}

func (l *Lab) segment(net string, bits int) *Segment {
	l.t.Helper()
	s := &Segment{lab: l, prefix: fmt.Sprintf("np%d-%d", os.Getpid(), segments.Add(1)), net: net, bits: bits}
	s.sw = s.namespace("sw")
	l.ip("-n", s.sw, "link", "add", "br0", "type", "bridge")
	l.ip("-n", s.sw, "link", "set", "br0", "up")
	return s
}

// Host adds a host to the segment.
func (s *Segment) Host(name string) *Host {
	s.lab.t.Helper()
	s.hosts++
	h := &Host{Addr: fmt.Sprintf("%s.%d", s.net, s.hosts), lab: s.lab, ns: s.namespace(name), segment: s, port: fmt.Sprintf("p%d", s.hosts)}
	s.lab.ip("link", "add", "eth0", "netns", h.ns, "type", "veth", "peer", "name", h.port, "netns", s.sw)
	s.lab.ip("-n", s.sw, "link", "set", h.port, "master", "br0", "up")
	s.lab.ip("-n", h.ns, "addr", "add", fmt.Sprintf("%s/%d", h.Addr, s.bits), "dev", "eth0")
	s.lab.ip("-n", h.ns, "link", "set", "lo", "up")
	if s.prefix6 != "" {
		h.Addr6 = fmt.Sprintf("%s:%x", s.prefix6, s.hosts)
		// Else it is lost when the host is unplugged.
		s.lab.set(h.ns, "net.ipv6.conf.eth0.keep_addr_on_down")
		s.lab.ip("-n", h.ns, "addr", "add", h.Addr6+"/64", "dev", "eth0", "nodad")
	}
	s.members = append(s.members, h)
	h.Plug()
	return h
}

// JoinLAN gives the host an address that only the local network knows.
func (h *Host) JoinLAN() {
	h.lab.t.Helper()
	h.LAN = strings.Replace(h.Addr, "11.0.0.", "192.168.77.", 1)
	h.lab.ip("-n", h.ns, "addr", "add", h.LAN+"/24", "dev", "eth0")
}

// StayOutside makes the addresses of the local network as unreachable from the
// host as they are from elsewhere.
func (h *Host) StayOutside() {
	h.lab.t.Helper()
	h.lab.ip("-n", h.ns, "route", "add", "unreachable", "192.168.77.0/24")
}

// Plug connects the host with its segment.
func (h *Host) Plug() {
	h.lab.t.Helper()
	h.lab.ip("-n", h.ns, "link", "set", "eth0", "up")
	h.route()
}

// route leads the host's packets to its segment's gateway, or just onto the
// segment where there is none.
func (h *Host) route() {
	s := h.segment
	via := []string{"-n", h.ns, "route", "replace", "default", "dev", "eth0"}
	if s.gateway != "" {
		via = append(via, "via", s.gateway)
	}
	s.lab.ip(via...)
	if s.gateway6 != "" {
		s.lab.ip("-n", h.ns, "-6", "route", "replace", "default", "via", s.gateway6, "dev", "eth0")
	}
	for _, r := range s.routes6 {
		h.routeIPv6(r)
	}
}

// Unplug takes the host off its segment. It keeps its address.
func (h *Host) Unplug() {
	h.lab.t.Helper()
	h.lab.ip("-n", h.ns, "link", "set", "eth0", "down")
}

// namespace makes a network namespace that goes when the test does.
func (s *Segment) namespace(name string) string {
	ns := s.prefix + "-" + name
	note := s.lab.home.noteNamespace(ns)
	s.lab.ip("netns", "add", ns)
	s.lab.t.Cleanup(func() {
		s.lab.ip("netns", "delete", ns)
		_ = os.Remove(note)
	})
	return ns
}

func (l *Lab) ip(args ...string) {
	l.t.Helper()
	// It also runs in clean-ups, when the test's context is over.
	cmd := exec.CommandContext(context.Background(), "ip", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("lab: ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Command prepares a program that runs on h and ends with ctx, at the latest
// with the test process.
func (h *Host) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	if h != nil {
		args = append([]string{"netns", "exec", h.ns, program}, args...)
		program = "ip"
	}
	cmd := exec.CommandContext(ctx, program, args...)
	ownGroup(cmd)
	return cmd
}

// Start starts a program on the host that ends with the test at the latest.
func (h *Host) Start(program string, args ...string) {
	h.lab.t.Helper()
	h.start(h.Command(context.Background(), program, args...))
}

func (h *Host) start(cmd *exec.Cmd) {
	h.lab.t.Helper()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		h.lab.t.Fatalf("lab: %v", err)
	}
	h.lab.t.Cleanup(func() {
		_ = cmd.Cancel() // It may have ended.
		if err := cmd.Wait(); h.lab.t.Failed() {
			h.lab.t.Logf("%s: %v\n%s", cmd, err, said.String())
		}
	})
}

// WaitListening waits until something on the host takes connections at a TCP
// port.
func (h *Host) WaitListening(port int) {
	h.lab.t.Helper()
	h.lab.WaitFor(fmt.Sprintf("something to listen at port %d of %s", port, h.Addr), func() bool {
		out, err := h.Command(h.lab.Context(), "ss", "-Hltn", "sport", fmt.Sprintf("= :%d", port)).Output()
		return err == nil && len(out) > 0
	})
}
