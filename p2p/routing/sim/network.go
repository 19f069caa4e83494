// Package sim is a network of DHT nodes without sockets: each node is a real
// go-libp2p-kad-dht, and what it sends to another is a function call. So ten
// thousand nodes fit into one process, and every message can be counted.
//
// What is not simulated: time (a message arrives at once), bandwidth, NATs, and
// the connections below the messages, of which Traffic counts how many there
// would be. All nodes share one address book, so no address is ever unknown;
// and routing tables begin as full as those of nodes that have run for long.
package sim

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// Prefix begins the protocol ID of a network's DHT.
const Prefix protocol.ID = "/nar-p2p/sim"

// bucketSize is the DHT's own: the size of its buckets, and the number of nodes
// that keep a record.
const bucketSize = 20

// Network is a set of nodes that can reach each other. Its methods are safe for
// concurrent use.
type Network struct {
	servers []*Server

	mu    sync.RWMutex
	hosts map[peer.ID]*Host
}

// Server is one node that serves the DHT.
type Server struct {
	*dht.IpfsDHT
	Host *Host
	// kad is its place in the key space.
	kad [sha256.Size]byte
}

// New makes a network of servers that know each other as well as those of a
// network of this size do. The same seed makes the same network.
func New(servers int, seed uint64) (*Network, error) {
	n := &Network{hosts: make(map[peer.ID]*Host)}
	random := rand.New(rand.NewPCG(seed, 0))
	all := make([]*Server, 0, servers)
	for range servers {
		s, err := n.newServer(random)
		if err != nil {
			n.servers = all
			return nil, errors.Join(fmt.Errorf("sim: %w", err), n.Close())
		}
		all = append(all, s)
	}
	// By their places, so that all with a common prefix stand together.
	slices.SortFunc(all, func(a, b *Server) int { return slices.Compare(a.kad[:], b.kad[:]) })
	n.servers = all
	if err := n.introduce(random); err != nil {
		return nil, errors.Join(fmt.Errorf("sim: %w", err), n.Close())
	}
	return n, nil
}

// Options make a DHT on one of the network's hosts a part of it. It looks for
// other servers when it starts, and then once a day.
func (n *Network) Options() []dht.Option {
	return []dht.Option{
		dht.WithCustomMessageSender(n.sender),
		dht.RoutingTableRefreshPeriod(24 * time.Hour),
	}
}

func (n *Network) newServer(random *rand.Rand) (*Server, error) {
	h := n.NewHost(random)
	d, err := dht.New(h, append(n.Options(),
		dht.ProtocolPrefix(Prefix), dht.Mode(dht.ModeServer), dht.DisableAutoRefresh(), dht.DisableValues())...)
	if err != nil {
		return nil, err
	}
	return &Server{IpfsDHT: d, Host: h, kad: sha256.Sum256([]byte(h.id))}, nil
}

// NewHost adds a host with a made-up identity and two addresses, TCP and QUIC,
// which is connected with three of the servers that are up.
func (n *Network) NewHost(random *rand.Rand) *Host {
	// An ed25519 public key as it stands in a peer ID: 32 bytes in protobuf,
	// inside an identity multihash.
	id := append(make([]byte, 0, 38), 0x00, 36, 0x08, 1, 0x12, 32)
	for range 32 {
		id = append(id, byte(random.Uint32()))
	}
	ip := netip.AddrFrom4([4]byte{11, byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
	h := &Host{net: n, id: peer.ID(id), handlers: newHandlers()}
	h.SetAddrs(
		ma.StringCast(fmt.Sprintf("/ip4/%s/tcp/8461", ip)),
		ma.StringCast(fmt.Sprintf("/ip4/%s/udp/8461/quic-v1", ip)),
	)
	for _, at := range random.Perm(len(n.servers)) {
		if s := n.servers[at]; len(h.peers) < 3 && !s.Host.down.Load() {
			h.peers = append(h.peers, s.PeerID())
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[h.id] = h
	return h
}

// Servers returns the servers in the order of their places in the key space.
func (n *Network) Servers() []*Server { return n.servers }

// host returns a host that is there and up.
func (n *Network) host(id peer.ID) (*Host, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	h, ok := n.hosts[id]
	return h, ok && !h.down.Load()
}

// Close stops all servers.
func (n *Network) Close() error {
	var errs []error
	for _, s := range n.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// introduce fills the routing tables of all servers as time would: from each
// bucket's part of the key space come up to 20 others.
func (n *Network) introduce(random *rand.Rand) error {
	for _, s := range n.servers {
		lo, hi := 0, len(n.servers)
		for bit := 0; hi-lo > 1; bit++ {
			middle := n.split(lo, hi, bit)
			far := n.servers[lo:middle]
			if s.hasBit(bit) {
				lo = middle
			} else {
				far, hi = n.servers[middle:hi], middle
			}
			for _, at := range random.Perm(len(far))[:min(len(far), bucketSize)] {
				if _, err := s.RoutingTable().TryAddPeer(far[at].PeerID(), true, false); err != nil {
					return fmt.Errorf("introduce %v: %w", far[at].PeerID(), err)
				}
			}
		}
	}
	return nil
}

// split returns the first server from lo to hi that has the bit. They have the
// bits before in common.
func (n *Network) split(lo, hi, bit int) int {
	return lo + sort.Search(hi-lo, func(i int) bool { return n.servers[lo+i].hasBit(bit) })
}

func (s *Server) hasBit(i int) bool { return s.kad[i/8]>>(7-i%8)&1 == 1 }

// Closest returns the servers nearest to a DHT key of those that are up and not
// full: those that should keep its records.
func (n *Network) Closest(key []byte, count int) []*Server {
	target := sha256.Sum256(key)
	sorted := slices.DeleteFunc(slices.Clone(n.servers), func(s *Server) bool { return s.Host.down.Load() || s.Host.full.Load() })
	slices.SortFunc(sorted, func(a, b *Server) int {
		for i := range target {
			if c := cmp.Compare(a.kad[i]^target[i], b.kad[i]^target[i]); c != 0 {
				return c
			}
		}
		return 0
	})
	return sorted[:min(count, len(sorted))]
}
