package host

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

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
	// renewInterval is how often the router is asked again for what it has mapped: so
	// long it may take to notice that it was restarted, or has another address.
	// portLifetime is how long it is asked to keep a mapping. It is short, because a
	// node that gets another address in the home finds its port taken by itself.
	renewInterval = 20 * time.Second
	portLifetime  = 5 * time.Minute
	// A router that maps no ports is asked again after minPause, as it may just have
	// been switched on, then after twice that, and so on up to maxPause.
	minPause = 10 * time.Second
	maxPause = 5 * time.Minute
	// requestTimeout bounds a question by UPnP, and releaseTimeout all that are asked at
	// the end.
	requestTimeout = 3 * time.Second
	releaseTimeout = 3 * time.Second
	maxMapped      = 16
)

// portMapper asks the router for ports that lead to the host, by NAT-PMP or UPnP,
// whichever it speaks, and gives them back at the end.
//
// Libp2p can do that too, but it looks for a router once, and for NAT-PMP at none at
// all; by UPnP it finds no router from behind a firewall of its own machine; it
// takes ports at random; and of a port that it has mapped for TCP and UDP it gives one
// back.
type portMapper struct {
	net network.Network
	// tell hears the router's outer address.
	tell   func(netip.Addr)
	cancel context.CancelFunc
	// working are the run and its searches.
	working sync.WaitGroup
	// listening is sent to when the host listens on another port, as it does on all
	// just after this was made.
	listening chan struct{}

	// mapper is the router, nil while none is known that maps ports; pause is how
	// long it was waited before the last search. Both belong to run.
	mapper mapper
	pause  time.Duration

	mu sync.Mutex
	// mapped are the outer addresses of inner ports.
	mapped map[port]netip.AddrPort
}

// mapper is a router that can be asked for ports.
type mapper interface {
	// outerAddr is the router's address on its outer side.
	outerAddr(ctx context.Context) (netip.Addr, error)
	// open has an outer port lead to p for portLifetime, if possible that one, and
	// returns it.
	open(ctx context.Context, p port, outer uint16) (uint16, error)
	// shut ends that.
	shut(ctx context.Context, p port, outer uint16) error
}

// port is an inner one of a protocol, "tcp" or "udp".
type port struct {
	protocol string
	number   uint16
}

// router is the way to the internet, from an own address.
type router struct{ gateway, own netip.Addr }

// translates reports whether there is a router that may have to map ports: whose own
// address is public has none to ask, and the machine to which its packets go is one
// of its provider's.
func (r router) translates() bool {
	return r.gateway.IsValid() && IsTranslated(r.own)
}

var _ basichost.NATManager = (*portMapper)(nil)

// newPortMapper maps the ports of a network. Tell, if not nil, hears the outer address
// of a router that maps ports, and the zero one where there is none any more.
func newPortMapper(n network.Network, tell func(netip.Addr)) basichost.NATManager {
	ctx, cancel := context.WithCancel(context.Background())
	if tell == nil {
		tell = func(netip.Addr) {}
	}
	m := &portMapper{net: n, tell: tell, cancel: cancel, listening: make(chan struct{}, 1), mapped: make(map[port]netip.AddrPort)}
	m.working.Go(func() { m.run(ctx) })
	return m
}

// Close gives the ports back.
func (m *portMapper) Close() error {
	m.cancel()
	m.working.Wait()
	return nil
}

// HasDiscoveredNAT reports whether a router was found that maps ports.
func (m *portMapper) HasDiscoveredNAT() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mapped) > 0
}

// GetMapping returns the outer address of a listen address, or nil. One that is
// private itself is that of a router behind another, and leads nowhere.
func (m *portMapper) GetMapping(listen ma.Multiaddr) ma.Multiaddr {
	p, rest, ok := portOf(listen)
	if !ok {
		return nil
	}
	m.mu.Lock()
	outer, ok := m.mapped[p]
	m.mu.Unlock()
	if !ok {
		return nil
	}
	addr, err := ma.NewMultiaddr("/ip4/" + outer.Addr().String() + "/" + p.protocol + "/" + strconv.Itoa(int(outer.Port())))
	if err != nil || !manet.IsPublicAddr(addr) {
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
		number, err := strconv.ParseUint(listen[1].Value(), 10, 16)
		return port{listen[1].Protocol().Name, uint16(number)}, listen[2:], err == nil && number > 0
	default:
		return port{}, nil, false
	}
}

// run keeps ports mapped until ctx ends.
func (m *portMapper) run(ctx context.Context) {
	notify := &network.NotifyBundle{ListenF: func(network.Network, ma.Multiaddr) {
		select {
		case m.listening <- struct{}{}:
		default:
		}
	}}
	m.net.Notify(notify)
	defer m.net.StopNotify(notify)
	tick := time.NewTicker(gatewayInterval)
	defer tick.Stop()
	var now router
	var due time.Time
	for {
		if r, ok := findRouter(); ok && r != now {
			now, due = r, time.Time{}
			m.mapper, m.pause = nil, 0
			m.tell(netip.Addr{})
			m.forget()
		}
		if now.translates() && !time.Now().Before(due) {
			due = time.Now().Add(m.mapAll(ctx, now))
		}
		select {
		case <-tick.C:
		case <-m.listening:
			due = time.Time{}
		case <-ctx.Done():
			m.release()
			return
		}
	}
}

// anywhere is an address that the way to the internet leads to. Nothing is sent.
var anywhere = net.IPv4(1, 1, 1, 1)

// findRouter returns the way to the internet, or false if that cannot be told. The
// gateway is the zero one where there is no router.
func findRouter() (r router, ok bool) {
	routes, err := netroute.New()
	if err != nil {
		return router{}, false
	}
	_, gateway, own, err := routes.Route(anywhere)
	if err != nil || gateway == nil {
		return router{}, true
	}
	r.gateway, _ = netip.AddrFromSlice(gateway.To4())
	r.own, _ = netip.AddrFromSlice(own.To4())
	return r, true
}

// mapAll asks the router for all ports that are listened on, and returns when to ask
// again.
func (m *portMapper) mapAll(ctx context.Context, r router) time.Duration {
	outer, err := m.reach(ctx, r)
	switch {
	case ctx.Err() != nil:
		return 0
	case err != nil:
		m.tell(netip.Addr{})
		m.forget()
		m.pause = min(max(2*m.pause, minPause), maxPause)
		return m.pause
	}
	m.pause = 0
	m.tell(outer)
	mapped := make(map[port]netip.AddrPort)
	for _, listen := range m.net.ListenAddresses() {
		p, _, ok := portOf(listen)
		if _, done := mapped[p]; !ok || done || len(mapped) == maxMapped {
			continue
		}
		// What is begun is brought to an end, so that it is known what to give back.
		if number, err := m.mapper.open(context.WithoutCancel(ctx), p, m.wanted(p)); err == nil {
			mapped[p] = netip.AddrPortFrom(outer, number)
		}
		if ctx.Err() != nil {
			m.add(mapped)
			return 0
		}
	}
	m.replace(mapped)
	if len(mapped) == 0 {
		return gatewayInterval // Nothing is listened on yet, or the router has no port now.
	}
	return renewInterval
}

// reach returns the outer address of the router, which is looked for anew where it
// does not answer: after a restart it may do so elsewhere.
func (m *portMapper) reach(ctx context.Context, r router) (netip.Addr, error) {
	if m.mapper != nil {
		outer, err := m.mapper.outerAddr(ctx)
		if err == nil || ctx.Err() != nil {
			return outer, err
		}
		m.mapper = nil
	}
	var err error
	if m.mapper, err = m.search(ctx, r); err != nil {
		return netip.Addr{}, err
	}
	return m.mapper.outerAddr(ctx)
}

// search finds out what the router speaks, and takes what it answers to first.
func (m *portMapper) search(ctx context.Context, r router) (mapper, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		found mapper
		err   error
	}
	ways := []func(context.Context, router) (mapper, error){findPMP, findUPnP}
	answers := make(chan answer, len(ways))
	for _, find := range ways {
		m.working.Go(func() {
			found, err := find(ctx, r)
			answers <- answer{found, err}
		})
	}
	var err error
	for range ways {
		a := <-answers
		if a.err == nil {
			return a.found, nil
		}
		err = a.err
	}
	return nil, err
}

// wanted is the outer port to ask for: the one that there was, or else the same as
// inside.
func (m *portMapper) wanted(p port) uint16 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if outer, ok := m.mapped[p]; ok {
		return outer.Port()
	}
	return p.number
}

// add takes note of ports beside those that are known.
func (m *portMapper) add(mapped map[port]netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.mapped, mapped)
}

// forget forgets all ports.
func (m *portMapper) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.mapped)
}

func (m *portMapper) replace(mapped map[port]netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mapped = mapped
}

// release gives the ports back.
func (m *portMapper) release() {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	m.mu.Lock()
	mapped := m.mapped
	m.mapped = nil
	m.mu.Unlock()
	for p, outer := range mapped {
		if err := m.mapper.shut(ctx, p, outer.Port()); err != nil && ctx.Err() != nil {
			return // The router is gone: it forgets by itself.
		}
	}
}
