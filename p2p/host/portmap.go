package host

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
	"github.com/libp2p/go-libp2p/core/network"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-netroute"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// gatewayInterval is how often the way to the internet is looked at, which takes
	// some microseconds: a laptop gets another router without another word.
	gatewayInterval = 5 * time.Second
	// portLifetime is how long a router is asked to keep a mapping, which is renewed
	// after half of that: as RFC 6886 recommends, but for the renewal of a router that
	// was restarted, which is to be noticed sooner.
	portLifetime = 30 * time.Minute
	// pmpTimeout bounds one request. A router that speaks NAT-PMP answers in
	// milliseconds; one that does not is asked again after pmpPause.
	pmpTimeout = 2 * time.Second
	pmpPause   = 5 * time.Minute
	maxMapped  = 16
)

// portMapper asks the router for ports that lead to the host: by NAT-PMP, and
// by UPnP as libp2p does, and anew when there is another router. Libp2p by itself
// asks once, and looks for NAT-PMP at no gateway: what it uses to find one refuses to.
type portMapper struct {
	net    network.Network
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	upnp basichost.NATManager
	// mapped are the outer addresses of inner ports.
	mapped map[port]netip.AddrPort
}

// port is an inner one of a protocol, "tcp" or "udp".
type port struct {
	protocol string
	number   int
}

// router is the way to the internet.
type router struct{ gateway, own string }

var _ basichost.NATManager = (*portMapper)(nil)

func newPortMapper(n network.Network) basichost.NATManager {
	ctx, cancel := context.WithCancel(context.Background())
	m := &portMapper{net: n, cancel: cancel, done: make(chan struct{}), mapped: make(map[port]netip.AddrPort)}
	go m.run(ctx)
	return m
}

// Close gives the ports back.
func (m *portMapper) Close() error {
	m.cancel()
	<-m.done
	return nil
}

// HasDiscoveredNAT reports whether a router was found that maps ports.
func (m *portMapper) HasDiscoveredNAT() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mapped) > 0 || m.upnp != nil && m.upnp.HasDiscoveredNAT()
}

// GetMapping returns the outer address of a listen address, or nil. One that is
// private itself is that of a router behind another, and leads nowhere.
func (m *portMapper) GetMapping(listen ma.Multiaddr) ma.Multiaddr {
	m.mu.Lock()
	defer m.mu.Unlock()
	outer := m.pmpMapping(listen)
	if outer == nil && m.upnp != nil {
		outer = m.upnp.GetMapping(listen)
	}
	if outer == nil || !manet.IsPublicAddr(outer) {
		return nil
	}
	return outer
}

func (m *portMapper) pmpMapping(listen ma.Multiaddr) ma.Multiaddr {
	p, rest, ok := portOf(listen)
	if !ok {
		return nil
	}
	outer, ok := m.mapped[p]
	if !ok {
		return nil
	}
	addr, err := ma.NewMultiaddr("/ip4/" + outer.Addr().String() + "/" + p.protocol + "/" + strconv.Itoa(int(outer.Port())))
	if err != nil {
		return nil
	}
	return append(addr, rest...)
}

// portOf returns the port of a listen address that a router of IPv4 could map, and
// what comes behind it.
func portOf(listen ma.Multiaddr) (p port, rest ma.Multiaddr, ok bool) {
	if len(listen) < 2 || listen[0].Protocol().Code != ma.P_IP4 {
		return port{}, nil, false
	}
	if ip := net.IP(listen[0].RawValue()); !ip.IsGlobalUnicast() && !ip.IsUnspecified() {
		return port{}, nil, false
	}
	switch listen[1].Protocol().Code {
	case ma.P_TCP, ma.P_UDP:
		number, err := strconv.Atoi(listen[1].Value())
		return port{listen[1].Protocol().Name, number}, listen[2:], err == nil
	default:
		return port{}, nil, false
	}
}

// run keeps ports mapped until ctx ends.
func (m *portMapper) run(ctx context.Context) {
	defer close(m.done)
	tick := time.NewTicker(gatewayInterval)
	defer tick.Stop()
	var now router
	var due time.Time
	for {
		r, err := findRouter()
		if err != nil {
			r = unknownRouter
		}
		if r != now {
			now, due = r, time.Time{}
			m.restartUPnP()
		}
		if now.gateway != "" && !time.Now().Before(due) {
			due = time.Now().Add(m.mapAll(ctx, now))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			m.release(now)
			return
		}
	}
}

// restartUPnP has libp2p look for a router.
func (m *portMapper) restartUPnP() {
	fresh := basichost.NewNATManager(m.net)
	m.mu.Lock()
	old := m.upnp
	m.upnp = fresh
	clear(m.mapped)
	m.mu.Unlock()
	if old != nil {
		_ = old.Close() // The router is another one.
	}
}

// unknownRouter is one that UPnP may find.
var unknownRouter = router{own: "unknown"}

// anywhere is an address that the way to the internet leads to. Nothing is sent.
var anywhere = net.IPv4(1, 1, 1, 1)

// findRouter returns the way to the internet. The gateway is "" where there is no
// router.
func findRouter() (router, error) {
	routes, err := netroute.New()
	if err != nil {
		return router{}, err
	}
	_, gateway, own, err := routes.Route(anywhere)
	if err != nil || gateway == nil {
		return router{}, err
	}
	return router{gateway.String(), own.String()}, nil
}

// mapAll asks the router for all ports that are listened on, and returns when to ask
// again.
func (m *portMapper) mapAll(ctx context.Context, r router) time.Duration {
	client := natpmp.NewClientWithTimeout(net.ParseIP(r.gateway), pmpTimeout)
	outer, err := client.GetExternalAddress()
	if err != nil {
		m.replace(nil)
		return pmpPause
	}
	mapped := make(map[port]netip.AddrPort)
	for _, listen := range m.net.ListenAddresses() {
		p, _, ok := portOf(listen)
		if !ok || p.number == 0 || len(mapped) == maxMapped || ctx.Err() != nil {
			continue
		}
		got, err := client.AddPortMapping(p.protocol, p.number, p.number, int(portLifetime.Seconds()))
		if err != nil {
			continue
		}
		mapped[p] = netip.AddrPortFrom(netip.AddrFrom4(outer.ExternalIPAddress), got.MappedExternalPort)
	}
	m.replace(mapped)
	if len(mapped) == 0 {
		return gatewayInterval // Nothing is listened on yet, or the router has no port now.
	}
	return min(portLifetime/2, pmpPause)
}

func (m *portMapper) replace(mapped map[port]netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mapped = mapped
}

// release gives the ports back.
func (m *portMapper) release(r router) {
	m.mu.Lock()
	upnp, mapped := m.upnp, m.mapped
	m.upnp, m.mapped = nil, nil
	m.mu.Unlock()
	client := natpmp.NewClientWithTimeout(net.ParseIP(r.gateway), pmpTimeout)
	for p := range mapped {
		if _, err := client.AddPortMapping(p.protocol, p.number, 0, 0); err != nil {
			break // The router is gone: it forgets by itself.
		}
	}
	if upnp != nil {
		_ = upnp.Close()
	}
}
