package sim

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
)

// errUnreachable is what a message to a host that is down or unknown meets.
var errUnreachable = errors.New("sim: unreachable")

// Host is a libp2p host that exists only in memory. It has as much of one as a
// DHT needs; what that is not used to ask for panics.
type Host struct {
	net   *Network
	id    peer.ID
	addrs atomic.Pointer[[]ma.Multiaddr]
	// peers are those that are connected when the host starts.
	peers []peer.ID
	// down hosts are not there, full ones take no records.
	down, full atomic.Bool
	*handlers
	traffic traffic
}

var _ host.Host = (*Host)(nil)

// SetDown takes the host off the network without a word, or brings it back.
func (h *Host) SetDown(down bool) { h.down.Store(down) }

// SetFull makes the host refuse provider records, or take them again. It still
// answers.
func (h *Host) SetFull(full bool) { h.full.Store(full) }

// SetAddrs changes the addresses that the host announces.
func (h *Host) SetAddrs(addrs ...ma.Multiaddr) { h.addrs.Store(&addrs) }

// ID implements host.Host.
func (h *Host) ID() peer.ID { return h.id }

// Addrs implements host.Host.
func (h *Host) Addrs() []ma.Multiaddr { return *h.addrs.Load() }

// Peerstore implements host.Host.
func (h *Host) Peerstore() peerstore.Peerstore { return book{net: h.net} }

// Network implements host.Host.
func (h *Host) Network() network.Network { return connections{host: h} }

// Mux implements host.Host.
func (h *Host) Mux() protocol.Switch { return h.handlers }

// ConnManager implements host.Host.
func (h *Host) ConnManager() connmgr.ConnManager { return connmgr.NullConnMgr{} }

// EventBus implements host.Host. Nothing ever happens on it.
func (h *Host) EventBus() event.Bus { return eventbus.NewBus() }

// Connect implements host.Host.
func (h *Host) Connect(_ context.Context, to peer.AddrInfo) error {
	if _, ok := h.net.host(to.ID); !ok {
		h.traffic.failed.Add(1)
		return errUnreachable
	}
	return nil
}

// NewStream implements host.Host. Messages go through Network.Sender.
func (h *Host) NewStream(context.Context, peer.ID, ...protocol.ID) (network.Stream, error) {
	return nil, errors.New("sim: no streams")
}

// SetStreamHandler implements host.Host.
func (h *Host) SetStreamHandler(id protocol.ID, f network.StreamHandler) { h.set(id, f) }

// SetStreamHandlerMatch implements host.Host.
func (h *Host) SetStreamHandlerMatch(id protocol.ID, _ func(protocol.ID) bool, f network.StreamHandler) {
	h.set(id, f)
}

// RemoveStreamHandler implements host.Host.
func (h *Host) RemoveStreamHandler(id protocol.ID) { h.set(id, nil) }

// Close implements host.Host.
func (h *Host) Close() error {
	h.SetDown(true)
	return nil
}

// handlers is a protocol.Switch as far as Mux needs it.
type handlers struct {
	protocol.Switch

	mu   sync.RWMutex
	byID map[protocol.ID]network.StreamHandler
}

func newHandlers() *handlers {
	return &handlers{byID: make(map[protocol.ID]network.StreamHandler)}
}

func (h *handlers) set(id protocol.ID, f network.StreamHandler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f == nil {
		delete(h.byID, id)
	} else {
		h.byID[id] = f
	}
}

func (h *handlers) get(id protocol.ID) network.StreamHandler {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.byID[id]
}

// Protocols implements protocol.Switch.
func (h *handlers) Protocols() []protocol.ID {
	h.mu.RLock()
	defer h.mu.RUnlock()
	ids := make([]protocol.ID, 0, len(h.byID))
	for id := range h.byID {
		ids = append(ids, id)
	}
	return ids
}

// connections is a host's network, with which everyone else is connected who is
// up.
type connections struct {
	network.Network

	host *Host
}

func (c connections) LocalPeer() peer.ID                 { return c.host.id }
func (c connections) Peers() []peer.ID                   { return c.host.peers }
func (c connections) Conns() []network.Conn              { return nil }
func (c connections) ConnsToPeer(peer.ID) []network.Conn { return nil }

func (c connections) Connectedness(p peer.ID) network.Connectedness {
	if _, ok := c.host.net.host(p); ok {
		return network.Connected
	}
	return network.NotConnected
}

// book is the address book that all hosts share: it knows everyone, always.
type book struct {
	peerstore.Peerstore

	net *Network
}

func (b book) Addrs(p peer.ID) []ma.Multiaddr {
	b.net.mu.RLock()
	defer b.net.mu.RUnlock()
	if h, ok := b.net.hosts[p]; ok {
		return h.Addrs()
	}
	return nil
}

func (b book) PeerInfo(p peer.ID) peer.AddrInfo { return peer.AddrInfo{ID: p, Addrs: b.Addrs(p)} }

func (b book) FirstSupportedProtocol(_ peer.ID, ids ...protocol.ID) (protocol.ID, error) {
	return ids[0], nil
}

func (b book) AddAddrs(peer.ID, []ma.Multiaddr, time.Duration)         {}
func (b book) SetAddrs(peer.ID, []ma.Multiaddr, time.Duration)         {}
func (b book) UpdateAddrs(_ peer.ID, _ time.Duration, _ time.Duration) {}
func (b book) ClearAddrs(peer.ID)                                      {}
func (b book) RecordLatency(peer.ID, time.Duration)                    {}
func (b book) LatencyEWMA(peer.ID) time.Duration                       { return 0 }
