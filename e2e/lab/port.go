package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// port is a TCP port of loopback that stays reserved while nobody listens on
// it, so that nobody else gets it in the meantime.
type port struct {
	addr string
	// reserved is bound and never listens; others may listen on its port.
	reserved int
	// hole listens while connections are swallowed, else it is -1; filler fills
	// its queue.
	hole   int
	filler net.Conn
}

// Port returns an address of loopback for a server that is stopped and started
// again: nobody else gets it meanwhile.
func (l *Lab) Port() string {
	l.t.Helper()
	p, err := newPort()
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	l.t.Cleanup(p.close)
	return p.addr
}

func newPort() (*port, error) {
	fd, err := bound(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		return nil, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	own, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return nil, fmt.Errorf("bound to %v", name)
	}
	return &port{addr: netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port)).String(), reserved: fd, hole: -1}, nil
}

// bound returns a TCP socket bound to addr.
func bound(addr netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// As Go's listeners do it: else they could not have the same address.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		return -1, errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
	}
	return fd, nil
}

// forkTime is how long a program may take from its fork until it runs. Till then it has
// a copy of every open socket: who listened before seems to listen still.
const forkTime = 5 * time.Second

// onceFree does what fails while somebody listens on the port.
func onceFree(f func() error) error {
	for end := time.Now().Add(forkTime); ; time.Sleep(time.Millisecond) {
		if err := f(); !errors.Is(err, unix.EADDRINUSE) || time.Now().After(end) {
			return err
		}
	}
}

// listen takes connections.
func (p *port) listen() (listener net.Listener, err error) {
	p.closeHole()
	err = onceFree(func() error {
		listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", p.addr)
		return err
	})
	return listener, err
}

// fillTime is how long the kernel has for a connection on loopback. It takes
// far less unless it drops it.
const fillTime = 2 * time.Second

// swallow makes whoever connects wait for ever: where the queue of connections
// to be accepted is full, the kernel drops what comes.
func (p *port) swallow() error {
	p.closeHole()
	addr, err := netip.ParseAddrPort(p.addr)
	if err != nil {
		return err
	}
	err = onceFree(func() error {
		p.hole, err = bound(addr)
		return err
	})
	if err != nil {
		return err
	}
	if err := unix.Listen(p.hole, 0); err != nil {
		return os.NewSyscallError("listen", err)
	}
	filler := net.Dialer{Timeout: fillTime}
	p.filler, err = filler.DialContext(context.Background(), "tcp", p.addr)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return nil // somebody else was quicker, and fills it
	}
	return err
}

func (p *port) closeHole() {
	if p.filler != nil {
		_ = p.filler.Close()
		p.filler = nil
	}
	if p.hole >= 0 {
		_ = unix.Close(p.hole)
		p.hole = -1
	}
}

func (p *port) close() {
	p.closeHole()
	_ = unix.Close(p.reserved)
}
