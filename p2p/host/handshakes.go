package host

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/p2p/netgroup"
)

// handshakes is a resource manager that bounds the connections which one network has
// opened without having said yet who it is.
type handshakes struct {
	network.ResourceManager

	perNet int

	mu   sync.Mutex
	nets map[netip.Prefix]int
}

func boundHandshakes(m network.ResourceManager, perNet int) *handshakes {
	return &handshakes{ResourceManager: m, perNet: perNet, nets: make(map[netip.Prefix]int)}
}

// OpenConnection implements network.ResourceManager.
func (m *handshakes) OpenConnection(dir network.Direction, usefd bool, endpoint ma.Multiaddr) (network.ConnManagementScope, error) {
	from, ok := netgroup.Within(endpoint, ip4Net, ip6Net)
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
	if m.nets[from] >= m.perNet {
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
