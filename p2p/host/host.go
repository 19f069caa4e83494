package host

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

// Connections are trimmed to lowConns once there are more than highConns,
// sparing those younger than connGrace. A DHT server needs a few dozen; each
// costs about 100 KB.
const (
	lowConns  = 32
	highConns = 96
	connGrace = 20 * time.Second
)

// maxMemory is what libp2p may reserve on top of its base limits, in bytes,
// and maxFDs its share of the process's file descriptors.
const (
	maxMemory = 256 << 20
	maxFDs    = 512
)

// What one network is where its connections are counted: an IPv4 address, or what one
// customer has of IPv6 at the least.
const (
	ip4Net = 32
	ip6Net = 56
)

// connsPerNet is how many connections there may be with one network, and connRate how
// many it may open in a second after as many at once. An office, or a carrier's
// customers, are many nodes behind one address; and a QUIC connection of a node that was
// restarted lasts for another half minute. libp2p allows 8, and then one every five
// seconds.
const (
	connsPerNet = 128
	connRate    = 8
)

// maxSilent is how many connections others may have opened without having said yet who
// they are, and maxSilentPerNet those of one network: who holds them for as long as it
// may, and opens others then, does not keep everybody out.
const (
	maxSilent       = highConns
	maxSilentPerNet = maxSilent / 2
)

// Infrastructure serves offices: many nodes behind one address.
const (
	infraHighConns       = 2_000
	infraConnsPerNet     = 512
	infraConnRate        = 20
	infraMaxSilent       = 2 * infraConnsPerNet
	infraMaxSilentPerNet = infraConnsPerNet / 2
	infraMaxMemory       = 1 << 30
	infraMaxFDs          = 8_192
)

// servicePeerMemory is what serving one peer may take, in bytes: 16 sessions of
// 1 MiB, which libp2p grants up to 60 % of a limit.
const servicePeerMemory = 32 << 20

// maxProtocolStreams bounds the streams of one protocol with one peer, in each
// direction. The stream protocols bound themselves lower; this stops who opens
// streams without a request.
const maxProtocolStreams = 64

// Config says what kind of host to build.
type Config struct {
	// Identity is required.
	Identity crypto.PrivKey
	// Listen holds TCP and QUIC addresses. Empty: the host only dials.
	Listen []ma.Multiaddr
	// Member, if not nil, tells of a peer whether the host connects with it at
	// all. When its answer changes, see DropOutsiders.
	Member func(peer.ID) bool
	// PSK, if not nil, is the key that every connection begins with; whoever does
	// not have it cannot even talk. QUIC cannot be had then, see WithoutQUIC.
	PSK pnet.PSK
	// LANOnly keeps the host off everything but the local network: no address
	// beyond it, no NAT traversal.
	LANOnly bool
	// Infrastructure marks a node with a public address that helps others:
	// it relays for them and tells them how reachable they are.
	Infrastructure bool
	// DataRelay, if not nil, has infrastructure relay NARs too.
	DataRelay *DataRelay
	// RelayMeter, if not nil, counts what infrastructure relays.
	RelayMeter *RelayMeter
	// Relays are used when this host turns out not to be reachable.
	Relays []peer.AddrInfo
	// RelaySource gives up to num candidates for relays where Relays is empty.
	// Nil: none. Without either the host cannot be reached behind a NAT, but
	// can still reach others.
	RelaySource func(num int) []peer.AddrInfo
	// Punched, if not nil, hears how the attempt has ended to punch a hole for a peer,
	// as it is to let through what the peer sends. It must not block.
	Punched func(p peer.ID, ok bool)
	// Router, if not nil, hears the outer address of a router that maps ports, each time
	// that it is asked to, and the zero one where there is none. It must not block.
	Router func(outer netip.Addr)
	// Providers, if not nil, is the addresses at which TCP is dialled before QUIC; in
	// a private network, and on the local one, it is everywhere.
	Providers *Providers
	// Service is the name, for the resource manager, of who serves Protocols.
	Service string
	// Protocols are those whose streams are to be limited for each peer.
	Protocols []protocol.ID
	// UserAgent is told to every peer.
	UserAgent string
	// Family, if not "", is told to every peer: the family of protocols that are
	// spoken, those of a private network. There infrastructure alone tells others
	// how reachable they are; elsewhere every node does by AutoNAT v2.
	Family string
	// Bandwidth, if not nil, counts bytes for each peer.
	Bandwidth metrics.Reporter
	// Registerer receives libp2p's own metrics. Nil: none are made.
	Registerer prometheus.Registerer
}

// New builds the host, which listens from now on. Close it.
func New(cfg *Config) (host.Host, error) {
	if cfg.Identity == nil {
		return nil, errors.New("host: no identity")
	}
	limits, err := newResourceManager(cfg)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	low, high := lowConns, highConns
	if cfg.Infrastructure {
		low, high = infraHighConns*3/4, infraHighConns
	}
	conns, err := connmgr.NewConnManager(low, high, connmgr.WithGracePeriod(connGrace))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("host: %w", err), limits.Close())
	}
	targets := new(punchTargets)
	opts := []libp2p.Option{
		libp2p.Identity(cfg.Identity),
		libp2p.UserAgent(cfg.UserAgent),
		transports(cfg),
		// TLS carries twice what Noise does with AES in hardware.
		libp2p.Security(tls.ID, tls.New),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, newMuxer()),
		libp2p.ConnectionManager(conns),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionGater(&gater{isMember: cfg.Member, lanOnly: cfg.LANOnly}),
		libp2p.AddrsFactory(Announced(cfg.Listen)),
		libp2p.SwarmOpts(swarm.WithDialRanker(dialRanker(cfg.Family != "", cfg.Providers, cfg.Relays, targets.maybeMapped))),
		// Only below: if listening fails in its constructor, libp2p leaves all
		// else behind.
		libp2p.NoListenAddrs,
		family(cfg),
		relayClient(cfg),
		observe(cfg),
		traversal(cfg, targets),
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	n := h.Network()
	targets.network.Store(&n)
	if cfg.Family != "" && !cfg.Infrastructure {
		h.RemoveStreamHandler(autonatv2.DialProtocol)
	}
	if cfg.Member != nil {
		h.Network().Notify(outsiders(cfg.Member))
	}
	if err := h.Network().Listen(cfg.Listen...); err != nil {
		return nil, errors.Join(fmt.Errorf("host: %w", err), h.Close())
	}
	return h, nil
}

func family(cfg *Config) libp2p.Option {
	if cfg.Family == "" {
		return libp2p.ChainOptions()
	}
	return libp2p.ProtocolVersion(cfg.Family)
}

func transports(cfg *Config) libp2p.Option {
	if cfg.PSK != nil {
		return libp2p.ChainOptions(libp2p.Transport(tcp.NewTCPTransport), libp2p.PrivateNetwork(cfg.PSK))
	}
	return libp2p.ChainOptions(libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(quic.NewTransport))
}

func newResourceManager(cfg *Config) (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)
	for _, id := range cfg.Protocols {
		limits.AddProtocolPeerLimit(id, rcmgr.BaseLimit{
			StreamsInbound:  maxProtocolStreams,
			StreamsOutbound: maxProtocolStreams,
			Streams:         2 * maxProtocolStreams,
			Memory:          maxMemory,
		}, rcmgr.BaseLimitIncrease{})
	}
	if cfg.Service != "" {
		limits.AddServicePeerLimit(cfg.Service, rcmgr.BaseLimit{
			StreamsInbound:  maxProtocolStreams * len(cfg.Protocols),
			StreamsOutbound: maxProtocolStreams * len(cfg.Protocols),
			Streams:         2 * maxProtocolStreams * len(cfg.Protocols),
			Memory:          servicePeerMemory,
		}, rcmgr.BaseLimitIncrease{})
	}
	memory, fds, nets := int64(maxMemory), maxFDs, perNet(connsPerNet, connRate)
	silent, silentPerNet := maxSilent, maxSilentPerNet
	// Those who have come through a relay and punched a hole are connected twice for a
	// moment, and more than that while they do it.
	limits.SystemBaseLimit.Conns = 4 * highConns
	limits.SystemBaseLimit.ConnsInbound = 2 * highConns
	if cfg.Infrastructure {
		memory, fds, nets = infraMaxMemory, infraMaxFDs, perNet(infraConnsPerNet, infraConnRate)
		silent, silentPerNet = infraMaxSilent, infraMaxSilentPerNet
		limits.SystemBaseLimit.Conns = 2 * infraHighConns
		limits.SystemBaseLimit.ConnsInbound = 2 * infraHighConns
	}
	limits.TransientBaseLimit.Conns = 2 * silent
	limits.TransientBaseLimit.ConnsInbound = silent
	manager, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.Scale(memory, fds)), nets...)
	if err != nil {
		return nil, err
	}
	return boundHandshakes(manager, silentPerNet), nil
}

// perNet allows one network this many connections, all of which may come at once,
// as after a restart, and then this many in a second.
func perNet(conns int, perSecond float64) []rcmgr.Option {
	limit := rate.Limit{RPS: perSecond, Burst: conns}
	return []rcmgr.Option{
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: ip4Net, ConnCount: conns}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: ip6Net, ConnCount: conns}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: ip4Net, Limit: limit}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: ip6Net, Limit: limit}},
			GracePeriod:      time.Minute,
		}}),
	}
}

// relayClient lets the host dial through relays and be dialled through them.
func relayClient(cfg *Config) libp2p.Option {
	if cfg.LANOnly {
		return libp2p.DisableRelay()
	}
	return libp2p.EnableRelay()
}

func observe(cfg *Config) libp2p.Option {
	opts := []libp2p.Option{libp2p.DisableMetrics()}
	if cfg.Registerer != nil {
		opts = []libp2p.Option{libp2p.PrometheusRegisterer(cfg.Registerer)}
	}
	if cfg.Bandwidth != nil {
		opts = append(opts, libp2p.BandwidthReporter(cfg.Bandwidth))
	}
	return libp2p.ChainOptions(opts...)
}

// traversal makes the host reach others, and be reached, through NATs.
func traversal(cfg *Config, targets *punchTargets) libp2p.Option {
	switch {
	case cfg.LANOnly || OnlyLoopback(cfg.Listen) && !cfg.Infrastructure:
		return libp2p.ChainOptions()
	case cfg.Infrastructure:
		return libp2p.ChainOptions(
			libp2p.ForceReachabilityPublic(),
			libp2p.EnableRelayService(relay.WithResources(relayResources(cfg.DataRelay)), relay.WithMetricsTracer(newRelayTracer(cfg))),
			// AutoRelay and the DHT's automatic mode listen to version 1 only.
			libp2p.EnableNATService(),
			libp2p.EnableAutoNATv2(),
			// With the detectors on, a node that dials little over UDP or IPv6
			// refuses to check others' addresses.
			libp2p.UDPBlackHoleSuccessCounter(nil),
			libp2p.IPv6BlackHoleSuccessCounter(nil),
		)
	}
	opts := []libp2p.Option{
		libp2p.NATManager(func(n network.Network) basichost.NATManager { return newPortMapper(n, cfg.Router) }),
		punching(cfg, targets),
		libp2p.EnableAutoNATv2(),
	}
	switch {
	case len(cfg.Relays) > 0:
		opts = append(opts, libp2p.EnableAutoRelayWithStaticRelays(cfg.Relays, knownRelays()...))
	case cfg.RelaySource != nil:
		opts = append(opts, libp2p.EnableAutoRelayWithPeerSource(relayCandidates(cfg.RelaySource), strangeRelays()...))
	}
	return libp2p.ChainOptions(opts...)
}
