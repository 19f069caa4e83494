package host

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"
)

// punchDialTimeout bounds each dial of a hole punch: one straight to the other
// side, in case it can be reached after all, and then punchAttempts from both sides
// at once. libp2p's own 10 s keep the second waiting for longer than a request
// does. It is several round trips around the world.
const (
	punchDialTimeout = 2 * time.Second
	punchAttempts    = 3
)

// maxPunches bounds the peers with whom punches are followed.
const maxPunches = 256

// punching lets the host punch holes, at the targets too, and tells of the outcome.
func punching(cfg *Config, targets *punchTargets) libp2p.Option {
	t := &punchTracer{outcome: cfg.Punched, failures: make(map[peer.ID]int)}
	traced := holepunch.WithTracer(t)
	if cfg.Registerer != nil {
		traced = holepunch.WithMetricsAndEventTracer(holepunch.NewMetricsTracer(holepunch.WithRegisterer(cfg.Registerer)), t)
	}
	return libp2p.EnableHolePunching(holepunch.DirectDialTimeout(punchDialTimeout), traced, holepunch.WithAddrFilter(targets))
}

// punchTargets adds to the addresses that the other side is told to dial. A node
// learns how its NAT maps a port from whoever it is connected with, over that
// transport alone; and where one side knows the address of its TCP port and the
// other that of its QUIC port, both dial in vain. So for a transport of which
// nothing is known the NAT is taken to keep the port, as most do where they can
// (RFC 4787, section 4.2.1).
type punchTargets struct {
	network atomic.Pointer[network.Network]
}

var _ holepunch.AddrFilter = (*punchTargets)(nil)

// maybeMapped reports whether a NAT may stand before the host, for all its addresses
// tell.
func (t *punchTargets) maybeMapped() bool {
	n := t.network.Load()
	return n == nil || !HasPublicIPv4(*n)
}

// FilterLocal implements holepunch.AddrFilter.
func (t *punchTargets) FilterLocal(_ peer.ID, known []ma.Multiaddr) []ma.Multiaddr {
	n := t.network.Load()
	if n == nil {
		return known
	}
	return withKeptPorts(known, (*n).ListenAddresses())
}

// FilterRemote implements holepunch.AddrFilter.
func (t *punchTargets) FilterRemote(_ peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr { return addrs }

// withKeptPorts adds to addresses that are known outside, for each of their IPs
// and each transport that has none there, the ports that are listened at.
func withKeptPorts(known, listen []ma.Multiaddr) []ma.Multiaddr {
	type target struct {
		ip        netip.Addr
		transport int
	}
	have := make(map[target]bool)
	var outside []ma.Component
	for _, addr := range known {
		if ip, ok := directIP(addr); ok && len(addr) > 1 {
			have[target{ip, addr[1].Protocol().Code}] = true
			if !slices.ContainsFunc(outside, func(c ma.Component) bool { return c.Equal(&addr[0]) }) {
				outside = append(outside, addr[0])
			}
		}
	}
	all := slices.Clone(known)
	for _, c := range outside {
		ip, _ := netip.AddrFromSlice(c.RawValue())
		for _, addr := range listen {
			bound, ok := directIP(addr)
			if ok && len(addr) > 1 && !bound.IsLoopback() && bound.Is4() == ip.Is4() && !have[target{ip, addr[1].Protocol().Code}] {
				all = append(all, append(ma.Multiaddr{c}, addr[1:]...))
			}
		}
	}
	return ma.Unique(all)
}

// punchTracer hears of each attempt, on either side.
type punchTracer struct {
	outcome func(p peer.ID, ok bool)

	mu       sync.Mutex
	failures map[peer.ID]int
}

var _ holepunch.EventTracer = (*punchTracer)(nil)

// Trace tells of a punch that has succeeded, or failed for the last time.
func (t *punchTracer) Trace(e *holepunch.Event) {
	end, ok := e.Evt.(*holepunch.EndHolePunchEvt)
	if !ok || t.outcome == nil {
		return
	}
	if t.ended(e.Remote, end.Success) {
		t.outcome(e.Remote, end.Success)
	}
}

// ended counts an attempt, and reports whether it was the last.
func (t *punchTracer) ended(p peer.ID, ok bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.failures) >= maxPunches {
		clear(t.failures)
	}
	t.failures[p]++
	last := ok || t.failures[p] >= punchAttempts
	if last {
		delete(t.failures, p)
	}
	return last
}
