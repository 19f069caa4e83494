package host

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// handshakesPerNet is how many connections one network may have opened without
// having said yet who it is: half of all that there may be of that kind, so that who
// holds them for as long as it may, and opens others then, does not keep out everybody.
const handshakesPerNet = highConns / 2

// handshakes is a resource manager that bounds them.
type handshakes struct {
	network.ResourceManager

	mu   sync.Mutex
	nets map[netip.Prefix]int
}

func boundHandshakes(m network.ResourceManager) *handshakes {
	return &handshakes{ResourceManager: m, nets: make(map[netip.Prefix]int)}
}

// OpenConnection implements network.ResourceManager.
func (m *handshakes) OpenConnection(dir network.Direction, usefd bool, endpoint ma.Multiaddr) (network.ConnManagementScope, error) {
	from, ok := netOf(endpoint)
	if dir != network.DirInbound || !ok {
		return m.ResourceManager.OpenConnection(dir, usefd, endpoint)
	}
	if !m.begin(from) {
		return nil, fmt.Errorf("handshakes with %s: %w", from, network.ErrResourceLimitExceeded)
	}
	scope, err := m.ResourceManager.OpenConnection(dir, usefd, endpoint)
	if err != nil {
		m.end(from)
		return nil, err
	}
	return &handshake{scope, sync.OnceFunc(func() { m.end(from) })}, nil
}

func (m *handshakes) begin(from netip.Prefix) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nets[from] >= handshakesPerNet {
		return false
	}
	m.nets[from]++
	return true
}

func (m *handshakes) end(from netip.Prefix) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nets[from]--; m.nets[from] == 0 {
		delete(m.nets, from)
	}
}

// netOf returns the network of an address, as perNet has it.
func netOf(addr ma.Multiaddr) (netip.Prefix, bool) {
	ip, err := manet.ToIP(addr)
	if err != nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}, false
	}
	bits := 56
	if a = a.Unmap(); a.Is4() {
		bits = 32
	}
	from, err := a.Prefix(bits)
	return from, err == nil
}

// handshake is a connection that ends one by telling who the peer is, or by its end.
type handshake struct {
	network.ConnManagementScope

	end func()
}

// SetPeer implements network.ConnManagementScope.
func (h *handshake) SetPeer(p peer.ID) error {
	h.end()
	return h.ConnManagementScope.SetPeer(p)
}

// Done implements network.ResourceScopeSpan.
func (h *handshake) Done() {
	h.end()
	h.ConnManagementScope.Done()
}
