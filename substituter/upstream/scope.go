package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
)

// scope says from where an address can be reached.
type scope int

const (
	everywhere scope = iota
	// site is a private network, link a segment of it; there cloud providers have
	// what tells a machine its secrets.
	site
	link
	machine
)

// carriers is the address space that customers of one carrier share (RFC 6598).
var carriers = netip.MustParsePrefix("100.64.0.0/10")

func scopeOf(ip netip.Addr) scope {
	switch ip = ip.Unmap(); {
	case ip.IsLoopback(), ip.IsUnspecified():
		return machine
	case ip.IsLinkLocalUnicast(), ip.IsMulticast():
		return link
	case ip.IsPrivate(), carriers.Contains(ip):
		return site
	}
	return everywhere
}

// errOutOfScope says that a cache has pointed to where it has no business.
var errOutOfScope = errors.New("a cache may not point there")

// guard looks at the addresses of hosts that only a cache's answers have named. It
// lets a cache point to its storage, but one on the internet not to the local
// network, and none but one on this machine to this machine.
type guard struct {
	// own is the cache's host, as a URL has it.
	own *url.URL
	// proxies has the addresses of those that the environment names as its keys.
	proxies sync.Map
	// lookup finds the addresses of a host.
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// known reports whether an address is the cache's own, or a proxy's.
func (g *guard) known(address string) bool {
	_, proxy := g.proxies.Load(address)
	return proxy || address == addressOf(g.own)
}

// proxy is http.ProxyFromEnvironment, and takes note of what that says.
func (g *guard) proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if u != nil {
		g.proxies.Store(addressOf(u), nil)
	}
	return u, err
}

// check is for net.Dialer: it is asked about each address before that is connected
// with.
func (g *guard) check(ctx context.Context, _, address string, _ syscall.RawConn) error {
	there, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errOutOfScope, address, err)
	}
	if scopeOf(there.Addr()) == everywhere {
		return nil
	}
	ips, err := g.lookup(ctx, "ip", g.own.Hostname())
	if err != nil {
		return fmt.Errorf("%w: %s, and where it is itself is not known: %w", errOutOfScope, address, err)
	}
	for _, ip := range ips {
		if scopeOf(there.Addr()) > scopeOf(ip) {
			return fmt.Errorf("%w: %s", errOutOfScope, address)
		}
	}
	return nil
}

// addressOf returns host and port of a URL.
func addressOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}
