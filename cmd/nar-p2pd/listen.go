package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// How many connections there may be at once. Nix has 25, and a machine that builds
// for others many a Nix.
const (
	maxHTTPConns    = 2048
	maxControlConns = 256
	maxRoutingConns = 512
)

// maxConns returns want, or less where the process may open few files: a quarter
// of them.
func maxConns(want int) int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur/4 >= uint64(want) {
		return want
	}
	return int(files.Cur / 4)
}

// listenHTTP returns the socket that systemd has passed, or else one on
// address.
func listenHTTP(ctx context.Context, address string) (net.Listener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets from systemd: %w", err)
	}
	switch {
	case len(passed) == 0:
		return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	case len(passed) == 1 && passed[0] != nil:
		return passed[0], nil
	default:
		return nil, fmt.Errorf("systemd has passed %d sockets, and one stream socket is wanted", len(passed))
	}
}

// urlOf returns the URL under which this machine reaches a listener.
func urlOf(l net.Listener) string {
	addr, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return "http://" + l.Addr().String()
	}
	if addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	}
	return "http://" + addr.String()
}

// ignoreClosed closes a listener that its server may have closed before.
func ignoreClosed(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}
