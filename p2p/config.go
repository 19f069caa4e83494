// Package p2p is a node among peers: it finds who holds what, fetches from
// them, and serves them what a shelf shows.
//
// A Node puts the packages below it together: host (connections), routing (the
// DHT), locate (who holds a NAR), exchange (the stream protocols) and swarm
// (fetching one NAR from several peers).
//
// # Strangers
//
// On the public network every peer is a stranger but for those in the
// allow-list; whoever asks through a Node says whether strangers may learn of
// it. In a private network nobody is a stranger. docs/protocol.md tells more.
package p2p

import (
	"errors"
	"fmt"
	"strings"

	ds "github.com/ipfs/go-datastore"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
	"github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/site"
)

// Profile says how much a node takes part.
type Profile string

const (
	// Consume fetches and never serves or announces.
	Consume Profile = "consume"
	// LAN keeps to the local network: no DHT, no address beyond it.
	LAN Profile = "lan"
	// Private takes full part in a private network.
	Private Profile = "private"
	// Public takes full part in the public network.
	Public Profile = "public"
)

// serves reports whether peers get answers.
func (p Profile) serves() bool { return p != Consume }

// announces reports whether the DHT is told what the node holds.
func (p Profile) announces() bool { return p == Private || p == Public }

// PublicNetwork is the network that anyone can join: the public IPFS DHT.
const PublicNetwork = routing.PublicNetwork

// maxNetworkName is in bytes; the name becomes part of protocol IDs.
const maxNetworkName = 32

// Config says what kind of node to be.
type Config struct {
	Profile Profile
	// Network is PublicNetwork or the name of a private network: 1 to 32
	// characters of a-z, 0-9 and "-".
	Network string
	// Identity is the node's key.
	Identity crypto.PrivKey
	// Listen holds TCP and QUIC addresses; empty: the node only dials.
	Listen []ma.Multiaddr
	// Bootstrap holds the peers through which others are found. Nil on the
	// public network: those of IPFS.
	Bootstrap []peer.AddrInfo
	// Peers are kept connected.
	Peers []peer.AddrInfo
	// Allow lists the peers that are no strangers, and AllowFile, if not "", is a
	// file with more of them, see package allow. In a private network, if there
	// is either, they are its members: nobody else is connected with, but for
	// Bootstrap and Peers.
	Allow     []peer.ID
	AllowFile string
	// Sites say what is not to be done on which interfaces.
	Sites []site.Rule
	// PSK, if not nil, is the key without which nobody can connect in a private
	// network. There is no QUIC then.
	PSK pnet.PSK
	// Endpoints are the URLs of servers to ask who provides what, beside the DHT
	// or, WithoutDHT, instead of it; see package delegated. Profile lan has
	// neither.
	Endpoints  []string
	WithoutDHT bool
	// UploadLimit is how many bytes per second peers are sent in all; 0 sets no
	// limit. See LimitUploads.
	UploadLimit int64
	// Answers says that Providers will be asked.
	Answers bool
	// Infrastructure marks a node with a public address that relays for others
	// and tells them how reachable they are.
	Infrastructure bool
	// DataRelay, if not nil, has infrastructure relay NARs too, which nodes behind
	// NATs that let no hole be punched can then exchange.
	DataRelay *host.DataRelay
	// AnnounceBudget is how many bytes a day may be sent to tell the public
	// network what the node holds; 0 sets no limit.
	AnnounceBudget int64
	// Datastore gives the persistent datastore of a namespace.
	Datastore func(namespace string) ds.Batching
	// Memory is what NARs on their way take their room from; nil is one of their
	// own. Window bounds how far one of them may be ahead of who reads it, in
	// bytes; 0 is 32 MiB.
	Memory *budget.Budget
	Window int64
	// Reuse finds chunks of NARs in this machine's own store; nil if none are to
	// be.
	Reuse *reuse.Index
	// UserAgent is told to every peer.
	UserAgent string
	// Registerer receives metrics. Nil: none are made.
	Registerer prometheus.Registerer
}

// private reports whether nobody is a stranger.
func (c *Config) private() bool { return c.Network != PublicNetwork }

func (c *Config) validate() error {
	switch {
	case c.Profile != Consume && c.Profile != LAN && c.Profile != Private && c.Profile != Public:
		return fmt.Errorf("profile %q has no node", c.Profile)
	case c.Profile == Private && !c.private():
		return errors.New("profile private needs a network with a name")
	case c.Profile == Public && c.private():
		return fmt.Errorf("profile public is not for the private network %q", c.Network)
	case c.Network == "" || len(c.Network) > maxNetworkName || strings.Trim(c.Network, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("network %.80q is not 1 to %d characters of a-z, 0-9 and -", c.Network, maxNetworkName)
	case (len(c.Endpoints) > 0 || c.WithoutDHT || c.Answers) && c.Profile == LAN:
		return errors.New("profile lan keeps off routing beyond the local network")
	case c.WithoutDHT && len(c.Endpoints) == 0:
		return errors.New("without the DHT there must be an endpoint to ask")
	case c.WithoutDHT && (c.Answers || c.Infrastructure):
		return errors.New("what serves others needs the DHT")
	case c.DataRelay != nil && (!c.Infrastructure || !c.private()):
		return errors.New("only infrastructure of a private network relays NARs")
	case c.PSK != nil && !c.private():
		return errors.New("the public network has no pre-shared key")
	case c.Identity == nil:
		return errors.New("no identity")
	case c.Datastore == nil:
		return errors.New("no datastore")
	}
	return nil
}

func (c *Config) bootstrap() []peer.AddrInfo {
	if c.Bootstrap == nil && !c.private() {
		return dht.GetDefaultBootstrapPeerAddrInfos()
	}
	return c.Bootstrap
}

// family is what the nodes of a private network tell each other to be known as
// such, or "".
func (c *Config) family() string {
	if !c.private() {
		return ""
	}
	return routing.Family(c.Network)
}

// hasDHT reports whether the node takes part in a DHT.
func (c *Config) hasDHT() bool { return c.Profile != LAN && !c.WithoutDHT }

// role is the node's part in the DHT.
func (c *Config) role() routing.Role {
	switch {
	case c.Infrastructure:
		return routing.Server
	case c.Profile == Consume:
		return routing.Client
	default:
		return routing.Automatic
	}
}
