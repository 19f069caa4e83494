package lab

import (
	"maps"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// netPort is where the line of a host of a Net ends.
type netPort struct {
	// fd is the TUN device of the host.
	fd int
	// up leads from the host to the middle, down to the host.
	up, down pipe
	// apart says that the host is cut off.
	apart atomic.Bool
}

// carrier carries packets between ports, all on one thread, so that the time of
// each is exact.
type carrier struct {
	ports map[netip.Addr]*netPort
	began time.Time
	// polled are the descriptors to wait for, the one that ends a wait first, and
	// from the ports that belong to them.
	polled []unix.PollFd
	from   []*netPort
	// buffer is where packets are read; spare are slices for those under way.
	buffer []byte
	spare  [2][][]byte
}

func newCarrier(wake int) *carrier {
	return &carrier{
		began: time.Now(), buffer: make([]byte, maxPacket),
		polled: []unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}}, from: []*netPort{nil},
	}
}

// use carries packets between all of these ports from now on.
func (c *carrier) use(ports map[netip.Addr]*netPort) {
	for addr, p := range ports {
		if c.ports[addr] != nil {
			continue
		}
		p.up.next = c.route
		p.down.next = func(a packet) {
			_, _ = unix.Write(p.fd, a.bytes) // A host that is going takes nothing.
			c.put(a.bytes)
		}
		c.polled = append(c.polled, unix.PollFd{Fd: int32(p.fd), Events: unix.POLLIN})
		c.from = append(c.from, p)
	}
	c.ports = maps.Clone(ports)
}

// carry waits until there is something to do, and does it.
func (c *carrier) carry() {
	var timeout *unix.Timespec
	if _, due, ok := c.earliest(); ok {
		t := unix.NsecToTimespec(max(int64(due-time.Since(c.began)), 0))
		timeout = &t
	}
	if _, err := unix.Ppoll(c.polled, timeout, nil); err == nil {
		for i, p := range c.polled {
			switch {
			case p.Revents == 0:
			case i == 0:
				_, _ = unix.Read(int(p.Fd), make([]byte, 8))
			default:
				c.read(c.from[i])
			}
		}
	}
	for {
		p, due, ok := c.earliest()
		if !ok || due > time.Since(c.began) {
			return
		}
		p.take()
	}
}

// earliest returns the pipe in which a packet arrives next.
func (c *carrier) earliest() (first *pipe, due time.Duration, ok bool) {
	for _, p := range c.from[1:] {
		for _, direction := range []*pipe{&p.up, &p.down} {
			if at, some := direction.due(); some && (!ok || at < due) {
				first, due, ok = direction, at, true
			}
		}
	}
	return first, due, ok
}

// read puts what a host has sent on its line, for a while at most.
func (c *carrier) read(p *netPort) {
	const atOnce = 64
	for range atOnce {
		n, err := unix.Read(p.fd, c.buffer)
		if err != nil || n == 0 {
			return
		}
		frame := c.buffer[:n]
		if _, ok := destination(frame); !ok || p.apart.Load() {
			continue
		}
		kept := append(c.get(n), frame...)
		if !p.up.put(time.Since(c.began), kept, wireSize(frame)) {
			c.put(kept)
		}
	}
}

// route puts a packet that has come to the middle on the line of the host that
// it is for.
func (c *carrier) route(a packet) {
	addr, _ := destination(a.bytes)
	if p := c.ports[addr]; p == nil || p.apart.Load() || !p.down.put(a.due, a.bytes, wireSize(a.bytes)) {
		c.put(a.bytes)
	}
}

// ordinary is the capacity of a slice for a packet of an MTU.
const ordinary = 2 << 10

// get returns a slice without bytes and with room for n.
func (c *carrier) get(n int) []byte {
	class, size := 0, ordinary
	if n > ordinary {
		class, size = 1, maxPacket
	}
	spare := c.spare[class]
	if len(spare) == 0 {
		return make([]byte, 0, size)
	}
	b := spare[len(spare)-1]
	c.spare[class] = spare[:len(spare)-1]
	return b
}

// put takes back what get returned.
func (c *carrier) put(b []byte) {
	class := 0
	if cap(b) > ordinary {
		class = 1
	}
	c.spare[class] = append(c.spare[class], b[:0])
}
