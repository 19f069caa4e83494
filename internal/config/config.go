// Package config gathers the daemon's settings from, in rising order of
// precedence: built-in defaults, one TOML file, environment variables
// NAR_P2P_*, and flags.
//
// One table (settings.go) names every key with its kind, its check and its
// text; the flags, the environment variables, the errors and
// docs/configuration.md are made from it. A key that the table does not have
// is an error, wherever it comes from.
package config

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/internal/schedule"
)

// Profile says how much of the network the node takes part in.
type Profile string

// The profiles, from least to most.
const (
	// ProfileOff starts no libp2p host at all.
	ProfileOff Profile = "off"
	// ProfileConsume asks peers, serves and announces nothing.
	ProfileConsume Profile = "consume"
	// ProfileLAN asks and serves peers on the local network only.
	ProfileLAN Profile = "lan"
	// ProfilePrivate asks and serves the peers of a named network.
	ProfilePrivate Profile = "private"
	// ProfilePublic asks and serves the public network.
	ProfilePublic Profile = "public"
)

// PublicNetwork is the name of the network that is the public IPFS DHT.
const PublicNetwork = "public"

// The kinds of store that a node serves from.
const (
	StoreAuto  = "auto"
	StoreNix   = "nix"
	StoreCache = "cache"
	StoreNone  = "none"
)

// The roles of a node.
const (
	// RoleNode is that of a machine with work of its own.
	RoleNode = "node"
	// RoleInfrastructure is that of one that is there to help others connect.
	RoleInfrastructure = "infrastructure"
)

// Whether the connection is paid for by volume.
const (
	MeteredAuto = "auto"
	MeteredYes  = "yes"
	MeteredNo   = "no"
)

// The ways to find out who provides what.
const (
	RoutingDHT       = "dht"
	RoutingDelegated = "delegated"
	RoutingBoth      = "both"
)

// CacheNixOSKey is the key of cache.nixos.org, the default for what is trusted
// and for what is shared.
const CacheNixOSKey = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="

// Config is every setting of the daemon, checked. settings.go documents them.
type Config struct {
	Profile  Profile
	Network  string
	Role     string
	StateDir string
	// Routing is RoutingDHT, RoutingDelegated or RoutingBoth; RoutingEndpoints
	// are for the latter two. ServeRouting is "" where nothing is served.
	Routing          string
	RoutingEndpoints []string
	ServeRouting     string
	// Metered is MeteredAuto, MeteredYes or MeteredNo.
	Metered string

	Log         Log
	Store       Store
	Substituter Substituter
	P2P         P2P
	Relay       Relay
	Share       Share
	Trust       Trust
	Upstreams   []Upstream
	Fetch       Fetch
	// Interfaces say what is done where; the first that matches counts.
	Interfaces []Interface
	// Schedule says when other limits count.
	Schedule []schedule.Entry
	Reuse    Reuse
	Tracing  Tracing
	Control  Control

	// File is the TOML file that was read, or "".
	File string
	// Origins says of each key that was set where: the file, "$VARIABLE" or
	// "--flag".
	Origins map[string]string
}

// Log says what is logged, and how.
type Log struct {
	Level  string
	Format string
}

// Store says where store paths are served from.
type Store struct {
	Kind         string
	Dir          string
	Root         string
	RealDir      string
	NixStateDir  string
	DaemonSocket string
	Cache        string
}

// Substituter is what Nix talks to.
type Substituter struct {
	Listen   string
	Priority int
	Deadline time.Duration
	Hosts    []string
	// RacePeers has peers asked for records while the upstreams are.
	RacePeers bool
	// MaxRecords is how many narinfos are kept on the disk.
	MaxRecords int
	Prefetch   bool
}

// P2P is what peers talk to. Addresses are multiaddrs in text form.
type P2P struct {
	Listen []string
	// Bootstrap is nil where nothing was given, which is not the same as empty.
	Bootstrap []string
	Peers     []string
	// Allow and AllowFile make up the allow-list together.
	Allow     []string
	AllowFile string
	PSKFile   string
	// UploadLimit is in bytes per second; 0 sets no limit.
	UploadLimit int64
}

// Relay says what a node with RoleInfrastructure relays.
type Relay struct {
	// Data allows NARs, Rate bytes per second (0 sets no limit) and Volume bytes in
	// each direction of a connection.
	Data         bool
	Rate, Volume int64
}

// Share says which paths may leave the machine.
type Share struct {
	PublicKeys []string
	Exclude    []string
	// MaxNARSize is in bytes; 0 sets no limit.
	MaxNARSize int64
	// AnnounceBudget is in bytes a day; 0 sets no limit.
	AnnounceBudget int64
}

// Trust says which signatures make a record count.
type Trust struct {
	PublicKeys []string
	Threshold  int
}

// Upstream is one HTTP binary cache.
type Upstream struct {
	URL        string
	PublicKeys []string
	// Private marks a cache whose paths strangers are never asked for.
	Private bool
	// Priority orders the upstreams: the lowest is asked first.
	Priority int
	// Netrc and TokenFile are files with credentials.
	Netrc     string
	TokenFile string
	// Include and Exclude are patterns of names of store paths.
	Include []string
	Exclude []string
}

// upstreamPriority is that of an upstream without one: what cache.nixos.org
// tells Nix.
const upstreamPriority = 40

// Fetch says what fetching may cost.
type Fetch struct {
	// Memory is for all NARs on their way, Window for one from peers, in bytes.
	Memory int64
	Window int64
	// DownloadLimit is in bytes per second; 0 sets no limit.
	DownloadLimit int64
}

// Reuse says what is taken from the local store instead of being fetched.
type Reuse struct {
	Enabled bool
	// Masked takes chunks too that differ in the hash parts that they mention.
	Masked bool
	// IndexSize bounds the index, in bytes.
	IndexSize int64
	// Background indexes NARs from BackgroundMin bytes on that nobody has asked
	// for, at BackgroundRate bytes a second.
	Background                    bool
	BackgroundMin, BackgroundRate int64
}

// Tracing says who is told how requests went.
type Tracing struct {
	// Endpoint is a URL, or "" where OpenTelemetry's own variables decide.
	Endpoint string
}

// Control is the socket that p2pctl talks to.
type Control struct {
	Socket string
}

// defaults returns the settings of a node that nobody configured, but for the
// profile and the paths, which depend on others (see finish).
func defaults() *Config {
	return &Config{
		Origins:     make(map[string]string),
		Network:     PublicNetwork,
		Role:        RoleNode,
		Routing:     RoutingDHT,
		Metered:     MeteredAuto,
		Log:         Log{Level: "info", Format: "console"},
		Store:       Store{Kind: StoreAuto, Dir: "/nix/store"},
		Substituter: Substituter{Listen: "127.0.0.1:8460", Priority: 30, Deadline: 5 * time.Second, MaxRecords: 64 << 10, Prefetch: true},
		P2P: P2P{Listen: []string{
			"/ip4/0.0.0.0/tcp/8461", "/ip4/0.0.0.0/udp/8461/quic-v1",
			"/ip6/::/tcp/8461", "/ip6/::/udp/8461/quic-v1",
		}},
		Relay:     Relay{Rate: 4 << 20, Volume: 1 << 30},
		Share:     Share{PublicKeys: []string{CacheNixOSKey}, AnnounceBudget: 200 << 20},
		Trust:     Trust{PublicKeys: []string{CacheNixOSKey}, Threshold: 1},
		Upstreams: []Upstream{{URL: "https://cache.nixos.org", Priority: upstreamPriority}},
		Fetch:     Fetch{Memory: budget.Default, Window: 32 << 20},
		Reuse: Reuse{
			Enabled: true, Masked: true, IndexSize: 128 << 20,
			Background: true, BackgroundMin: 1 << 20, BackgroundRate: 19 << 20,
		},
	}
}

// finish fills in what follows from other settings and checks the
// combinations.
func (c *Config) finish(env environment) error {
	if c.Profile == "" {
		c.Profile = ProfilePublic
		if c.Network != PublicNetwork {
			c.Profile = ProfilePrivate
		}
	}
	if c.StateDir == "" {
		c.StateDir = stateDir(env)
	}
	if c.StateDir == "" {
		return errors.New("state_dir: neither $STATE_DIRECTORY, $XDG_STATE_HOME nor $HOME says where state is kept: set it")
	}
	if c.Control.Socket == "" {
		c.Control.Socket = controlSocket(env, c.StateDir)
	}
	if err := checkSocket(c.Control.Socket); err != nil {
		return fmt.Errorf("control.socket: %q: %w", c.Control.Socket, err)
	}
	return c.check()
}

// check reports settings that do not go together.
func (c *Config) check() error {
	return errors.Join(c.checkNetwork(), c.checkRole(), c.checkRelay(), c.checkRouting(), c.checkStore(), c.checkShare(), c.checkTrust(), c.checkFetch())
}

func (c *Config) checkNetwork() error {
	named := c.Network != PublicNetwork
	switch {
	case c.Profile == ProfilePrivate && !named:
		return errors.New(`profile: "private" needs a named network: set network to a name of your own`)
	case c.Profile == ProfilePublic && named:
		return fmt.Errorf(`profile: "public" is for the public network, and network is %q: set profile to "private"`, c.Network)
	case c.P2P.PSKFile != "" && !named:
		return errors.New("p2p.psk_file: the public network has no key: set network to a name of your own")
	}
	return nil
}

// hasDHT reports whether the profile takes part in a DHT at all.
func (c *Config) hasDHT() bool { return c.Profile != ProfileOff && c.Profile != ProfileLAN }

// checkRole refuses what infrastructure is not for, and leaves out its store.
func (c *Config) checkRole() error {
	if c.Role != RoleInfrastructure {
		return nil
	}
	if c.Profile != ProfilePublic && c.Profile != ProfilePrivate {
		return fmt.Errorf(`role: "infrastructure" serves a whole network, and profile is %q: leave one of them out`, c.Profile)
	}
	if c.Store.Kind != StoreAuto && c.Store.Kind != StoreNone || c.Store.Cache != "" {
		return errors.New(`role: "infrastructure" has no store: leave out the settings of store, or let a second node serve it`)
	}
	c.Store.Kind = StoreNone
	return nil
}

// minRelayVolume is what peers take for the sign that a relay is meant for NARs, in
// bytes.
const minRelayVolume = 16 << 20

func (c *Config) checkRelay() error {
	switch {
	case !c.Relay.Data:
		return nil
	case c.Role != RoleInfrastructure:
		return errors.New(`relay.data: only a node with role "infrastructure" relays`)
	case c.Network == PublicNetwork:
		return errors.New("relay.data: in the public network anybody could send anything through this node: set network to a name of your own")
	case c.Relay.Volume < minRelayVolume:
		return fmt.Errorf("relay.volume: %d bytes are too few for NARs: set it to 16MiB at least", c.Relay.Volume)
	}
	return nil
}

func (c *Config) checkRouting() error {
	switch {
	case c.Routing == RoutingDHT && len(c.RoutingEndpoints) > 0:
		return errors.New(`routing_endpoints: are set, but routing is "dht": set it to "both", or to "delegated" to do without the DHT`)
	case c.Routing != RoutingDHT && len(c.RoutingEndpoints) == 0:
		return fmt.Errorf("routing: %q needs routing_endpoints, the URLs to ask", c.Routing)
	case c.Routing != RoutingDHT && !c.hasDHT():
		return fmt.Errorf("routing: is %q, but profile %q asks nobody beyond the local network", c.Routing, c.Profile)
	case c.Role == RoleInfrastructure && c.Routing != RoutingDHT:
		return fmt.Errorf(`routing: is %q, but role "infrastructure" is there to serve the DHT`, c.Routing)
	case c.ServeRouting != "" && (c.Routing == RoutingDelegated || !c.hasDHT()):
		return errors.New("serve_routing: answers from the DHT, in which this node takes no part: see profile and routing")
	}
	return nil
}

func (c *Config) checkStore() error {
	s := &c.Store
	nixOnly := slices.ContainsFunc([]string{s.Root, s.RealDir, s.NixStateDir, s.DaemonSocket}, func(v string) bool { return v != "" })
	switch {
	case s.Kind == StoreCache && s.Cache == "":
		return errors.New(`store.kind: "cache" needs store.cache, the directory of a binary cache`)
	case s.Kind != StoreCache && s.Kind != StoreAuto && s.Cache != "":
		return fmt.Errorf(`store.cache: is set, but store.kind is %q: set it to "cache"`, s.Kind)
	case s.Cache != "" && nixOnly:
		return errors.New("store.cache: is set beside settings of a Nix store: a node serves from one of them")
	}
	return nil
}

// checkShare keeps what only one's own people know of out of the public network:
// its peers may be told, and asked, of public packages alone.
func (c *Config) checkShare() error {
	if c.Network != PublicNetwork {
		return nil
	}
	for _, key := range c.Share.PublicKeys {
		if key != CacheNixOSKey {
			return fmt.Errorf("share.public_keys: %q: the public network shares only what cache.nixos.org has signed: "+
				"set network to a name of your own, or take the key out (to fetch what it has signed, trust.public_keys is enough)", key)
		}
	}
	return nil
}

func (c *Config) checkTrust() error {
	keys := slices.Clone(c.Trust.PublicKeys)
	for _, u := range c.Upstreams {
		keys = append(keys, u.PublicKeys...)
	}
	slices.Sort(keys)
	if n := len(slices.Compact(keys)); c.Trust.Threshold > n {
		return fmt.Errorf("trust.threshold: %d signatures are wanted, but only %d keys are trusted", c.Trust.Threshold, n)
	}
	return nil
}

// minMemory is what transfers need of fetch.memory to get on: a few NARs that are
// held whole, of 16 MiB at most. minWindow has room for some chunks from each of
// several peers.
const (
	minMemory = 64 << 20
	minWindow = 4 << 20
	// minIndex has room for what a few large paths consist of.
	minIndex = 1 << 20
)

func (c *Config) checkFetch() error {
	f := &c.Fetch
	switch {
	case c.Reuse.IndexSize < minIndex:
		return fmt.Errorf("reuse.index_size: %s is not enough: at least %s are needed", formatSize(c.Reuse.IndexSize), formatSize(minIndex))
	case f.Memory < minMemory:
		return fmt.Errorf("fetch.memory: %s is not enough: at least %s are needed", formatSize(f.Memory), formatSize(minMemory))
	case f.Window < minWindow || f.Window > f.Memory:
		return fmt.Errorf("fetch.window: %s is not between %s and fetch.memory", formatSize(f.Window), formatSize(minWindow))
	}
	return nil
}
