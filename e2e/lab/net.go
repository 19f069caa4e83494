package lab

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Net is a network whose hosts are connected with its middle by lines of a rate,
// a delay and a loss of their own, which TCP and QUIC meet as they would
// elsewhere: every packet goes through the lab. Between its hosts goes IPv4
// without multicast.
type Net struct {
	// names makes and removes the hosts' namespaces.
	names *Segment
	// wake ends the wait of run.
	wake int
	done chan struct{}

	mu     sync.Mutex
	ports  map[netip.Addr]*netPort
	closed bool
}

// Net makes a network without hosts. It needs root, or the right to make network
// namespaces.
func (l *Lab) Net() *Net {
	l.t.Helper()
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		l.t.Fatalf("lab: eventfd: %v", err)
	}
	n := &Net{
		names: &Segment{lab: l, prefix: fmt.Sprintf("np%d-%d", os.Getpid(), segments.Add(1))},
		wake:  wake, done: make(chan struct{}), ports: make(map[netip.Addr]*netPort),
	}
	go n.run()
	l.t.Cleanup(n.close)
	return n
}

// Host adds a host with an IPv4 address of any network: all hosts of a Net find
// each other. It has nothing of what is particular to a Segment.
func (n *Net) Host(addr string, line Line) *Host {
	l := n.names.lab
	l.t.Helper()
	ip, err := netip.ParseAddr(addr)
	if err != nil || !ip.Is4() {
		l.t.Fatalf("lab: %s is not an IPv4 address", addr)
	}
	n.names.hosts++
	h := &Host{Addr: addr, lab: l, ns: n.names.namespace(fmt.Sprintf("h%d", n.names.hosts))}
	fd, err := openTUN(h.ns, line.segments())
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	n.add(ip, fd, line)
	l.ip("-n", h.ns, "link", "set", "lo", "up")
	// So long a queue that it is the line's that overflows.
	l.ip("-n", h.ns, "link", "set", "eth0", "txqueuelen", "10000", "up")
	l.ip("-n", h.ns, "addr", "add", addr, "dev", "eth0")
	// TCP as nearly every Linux has it, whatever this machine does.
	l.ip("-n", h.ns, "route", "add", "default", "dev", "eth0", "congctl", "cubic")
	return h
}

func (n *Net) add(ip netip.Addr, fd int, line Line) {
	n.mu.Lock()
	defer n.mu.Unlock()
	up, down := line.directions(uint64(len(n.ports)))
	n.ports[ip] = &netPort{fd: fd, up: pipe{shaper: up}, down: pipe{shaper: down}}
	n.wakeUp()
}

// Part cuts a host off from all others, without a word to either side, or joins it
// with them again.
func (n *Net) Part(h *Host, apart bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[netip.MustParseAddr(h.Addr)].apart.Store(apart)
}

func (n *Net) close() {
	n.mu.Lock()
	n.closed = true
	n.wakeUp()
	n.mu.Unlock()
	<-n.done
	_ = unix.Close(n.wake)
	for _, p := range n.ports {
		_ = unix.Close(p.fd)
	}
}

func (n *Net) wakeUp() {
	// It fails only where so many wake-ups are still to be seen that one more
	// makes no difference.
	_, _ = unix.Write(n.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// run carries packets until close.
func (n *Net) run() {
	defer close(n.done)
	// A network does not wait until its hosts have nothing to do. (The priority is
	// the thread's; without it the network is less exact.)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -10)
		defer func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, 20-nice) }() // The kernel gives 20 less it.
	}
	c := newCarrier(n.wake)
	for {
		n.mu.Lock()
		closed, known := n.closed, len(n.ports)
		if known > len(c.ports) {
			c.use(n.ports)
		}
		n.mu.Unlock()
		if closed {
			return
		}
		c.carry()
	}
}
