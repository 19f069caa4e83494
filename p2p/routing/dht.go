package routing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	ds "github.com/ipfs/go-datastore"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/dual"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// PublicNetwork is the name of the network that is the public IPFS DHT.
const PublicNetwork = "public"

// Prefix is the beginning of every protocol ID of a network's own protocols.
// It keeps networks apart: a node that dials a node of another network learns
// "protocol not supported" before it has asked for anything.
func Prefix(network string) protocol.ID {
	if network == PublicNetwork {
		return "/nar-p2p"
	}
	return protocol.ID("/nar-p2p/" + network)
}

// Family is what the nodes of a private network tell each other to be known as
// such, in identify; the public network has none.
func Family(network string) string {
	if network == PublicNetwork {
		return ""
	}
	return string(Prefix(network)) + "/1"
}

// Role is the part a node plays in the DHT.
type Role int

const (
	// Automatic serves the DHT as far as the node can be reached.
	Automatic Role = iota
	// Client asks and never serves.
	Client
	// Server serves always.
	Server
)

// Config says which DHT to join, and how.
type Config struct {
	// Network is PublicNetwork or the name of a private network.
	Network string
	Role    Role
	// Bootstrap holds the peers that the DHT itself dials while no other peer of
	// the network is known. None: somebody else connects the host.
	Bootstrap []peer.AddrInfo
	// Announced filters the addresses that go into the DHT, both the node's
	// own and those that it hears of. The public network filters by itself.
	Announced func([]ma.Multiaddr) []ma.Multiaddr
	// Datastore gives the datastore of a namespace: for provider records that
	// the node keeps for others, and for what it has announced itself.
	Datastore func(namespace string) ds.Batching
	// AnnounceBudget is how many bytes a day may be sent for announcing, or 0
	// for as many as it takes. In the public network it does not count for the
	// local network's DHT.
	AnnounceBudget int64
	// Options are added to those of every table: a simulation's.
	Options []dht.Option
}

// table is one DHT with its name in the public network: "wan" or "lan".
type table struct {
	*dht.IpfsDHT
	name string
}

// DHT is the DHT of a network: one table in a private network, two in the
// public one.
type DHT struct {
	network string
	tables  []table
	close   func() error
	joined  time.Time
	// sightings is what lookups have found.
	sightings sightings
}

// Join starts to take part in the DHT over h. Close the host before the DHT:
// its requests use the datastore.
func Join(h host.Host, cfg *Config) (*DHT, error) {
	if cfg.Network == PublicNetwork {
		return joinPublic(h, cfg)
	}
	d := &DHT{network: cfg.Network, joined: time.Now()}
	mode := dht.ModeAutoServer
	switch cfg.Role {
	case Client:
		mode = dht.ModeClient
	case Server:
		mode = dht.ModeServer
	case Automatic:
		// Not ModeAuto: it serves only once a public node has said that this
		// one can be reached, and a network without public nodes would have
		// no server at all.
	}
	private, err := dht.New(h, append(slices.Clone(cfg.Options),
		dht.ProtocolPrefix(d.prefix()),
		dht.Mode(mode),
		dht.BootstrapPeers(cfg.Bootstrap...),
		dht.AddressFilter(cfg.Announced),
		dht.DisableValues(),
		dht.Datastore(d.datastore(cfg, "")),
	)...)
	if err != nil {
		return nil, fmt.Errorf("routing: %w", err)
	}
	d.tables, d.close = []table{{IpfsDHT: private}}, private.Close
	return d, nil
}

func joinPublic(h host.Host, cfg *Config) (*DHT, error) {
	d := &DHT{network: cfg.Network, joined: time.Now()}
	opts := []dual.Option{
		dual.WanDHTOption(
			dht.BootstrapPeers(cfg.Bootstrap...),
			dht.Datastore(d.datastore(cfg, "wan")),
		),
		dual.LanDHTOption(dht.Datastore(d.datastore(cfg, "lan"))),
		dual.DHTOption(cfg.Options...),
	}
	switch cfg.Role {
	case Client:
		opts = append(opts, dual.DHTOption(dht.Mode(dht.ModeClient)))
	case Server:
		opts = append(opts, dual.DHTOption(dht.Mode(dht.ModeServer)))
	case Automatic:
	}
	both, err := dual.New(h, opts...)
	if err != nil {
		return nil, fmt.Errorf("routing: %w", err)
	}
	d.tables = []table{{IpfsDHT: both.WAN, name: "wan"}, {IpfsDHT: both.LAN, name: "lan"}}
	d.close = both.Close
	return d, nil
}

// datastore returns the datastore for the records of one table. They are of no
// use in another network, nor is the memory of what was announced there.
func (d *DHT) datastore(cfg *Config, table string) ds.Batching {
	name := "dht-" + d.network
	if table != "" {
		name += "-" + table
	}
	limit := maxRecords
	if d.network == PublicNetwork {
		limit = maxPublicRecords
	}
	return newLimited(cfg.Datastore(name), limit)
}

// Bootstrap fills the routing tables. Call it once a peer is connected.
func (d *DHT) Bootstrap(ctx context.Context) error {
	var errs []error
	for _, t := range d.tables {
		errs = append(errs, t.Bootstrap(ctx))
	}
	return errors.Join(errs...)
}

// Close leaves the DHT.
func (d *DHT) Close() error {
	if err := d.close(); err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	return nil
}

// Size is the number of peers in the routing tables.
func (d *DHT) Size() int {
	n := 0
	for _, t := range d.tables {
		n += t.RoutingTable().Size()
	}
	return n
}

// Joined reports whether a peer of the network is known: in the public network,
// of the internet.
func (d *DHT) Joined() bool { return d.tables[0].RoutingTable().Size() > 0 }

// Knows reports whether a peer serves the DHT, as far as this node knows.
func (d *DHT) Knows(p peer.ID) bool {
	return slices.ContainsFunc(d.tables, func(t table) bool { return t.RoutingTable().Find(p) != "" })
}

// Serving reports whether the node answers queries of others: in the public
// network, of the internet.
func (d *DHT) Serving() bool {
	// An automatic DHT does not tell, but only a server speaks its protocol.
	t := d.tables[0]
	return slices.Contains(t.Host().Mux().Protocols(), d.prefix()+"/kad/1.0.0")
}

func (d *DHT) prefix() protocol.ID {
	if d.network == PublicNetwork {
		return dht.DefaultPrefix
	}
	return Prefix(d.network)
}

// Peers returns up to num peers of the routing tables whose addresses are
// known.
func (d *DHT) Peers(num int) []peer.AddrInfo {
	var infos []peer.AddrInfo
	for _, t := range d.tables {
		for _, p := range t.RoutingTable().ListPeers() {
			if len(infos) == num {
				return infos
			}
			if addrs := t.Host().Peerstore().Addrs(p); len(addrs) > 0 {
				infos = append(infos, peer.AddrInfo{ID: p, Addrs: addrs})
			}
		}
	}
	return infos
}
