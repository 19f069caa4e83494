package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// renewInterval is how often, at most, the connections with relays are renewed
// because holes could not be punched.
// They are after renewDelay, when it is known whether NARs go over them instead.
const (
	renewInterval = 5 * time.Minute
	renewDelay    = 2 * time.Second
)

// settleTime is how long after the start, or after the network has changed, it may
// take to know how the node stands.
const settleTime = 30 * time.Second

// outlook is what is known of how others can reach the node. Its zero value
// knows nothing.
type outlook struct {
	mu sync.Mutex
	// verdict is what libp2p goes by; probed are the addresses that others have
	// confirmed one by one.
	verdict network.Reachability
	probed  []ma.Multiaddr
	relays  []ma.Multiaddr
	// router is the outer address of a router that maps ports, zero where none does.
	router netip.Addr
	// nats are what the router does with ports, by transport.
	nats    map[network.NATTransportProtocol]network.NATDeviceType
	since   time.Time
	renewed time.Time
	// punches and failures count the holes that could be punched and not.
	punches, failures int64
}

func (s *outlook) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// judge follows what is found out about how the node can be reached, and says it
// to the parts of libp2p that go by it, until ctx ends.
//
// By itself libp2p asks others first, which takes a quarter of a minute, and looks
// for relays then; and where the only one to ask is a neighbour, who cannot tell,
// it asks for ever. But a node without a public address is behind a NAT until
// shown otherwise: it takes a relay at once, and gives it up when others say
// that they reach it. In a named network that is so where it has met a relay: in
// one without, whose nodes share a local network, some must serve the DHT, which
// they do until they are told that nobody can reach them.
func (l *live) judge(ctx context.Context) error {
	sub, err := l.host.EventBus().Subscribe([]any{
		new(event.EvtLocalReachabilityChanged),
		new(event.EvtHostReachableAddrsChanged),
		new(event.EvtAutoRelayAddrsUpdated),
		new(event.EvtNATDeviceTypeChanged),
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtLocalAddressesUpdated),
	}, eventbus.Name("nar-p2p-outlook"), eventbus.BufSize(64))
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	defer sub.Close()
	verdict, err := l.host.EventBus().Emitter(new(event.EvtLocalReachabilityChanged), eventbus.Stateful)
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	defer verdict.Close()
	say := func(r network.Reachability) {
		if l.outlook.now() != r {
			// An error means that the host is closing.
			_ = verdict.Emit(event.EvtLocalReachabilityChanged{Reachability: r})
		}
	}
	l.outlook.change(func() { l.outlook.since = time.Now() })
	assume := func() {
		if l.traverses() && l.outlook.now() == network.ReachabilityUnknown && l.meetsRelays() && !narhost.HasPublicIPv4(l.host.Network()) {
			say(network.ReachabilityPrivate)
		}
	}
	var asked chan bool // nil while nobody is asked
	defer func() {
		if asked != nil {
			<-asked
		}
	}()
	for {
		online := l.online.wait()
		assume()
		for changed := false; !changed; {
			select {
			case e := <-sub.Out():
				l.outlook.hear(e)
				switch e := e.(type) {
				case event.EvtHostReachableAddrsChanged:
					if l.outlook.confirmed() && l.traverses() {
						say(network.ReachabilityPublic)
					}
				case event.EvtPeerIdentificationCompleted:
					assume()
				case event.EvtLocalAddressesUpdated:
					if asked == nil && gainedPublicAddr(e) && l.traverses() && l.outlook.now() != network.ReachabilityPublic {
						asked = make(chan bool, 1)
						go func(answer chan<- bool) { answer <- l.dialledBack(ctx) }(asked)
					}
				}
			case reached := <-asked:
				asked = nil
				if reached {
					say(network.ReachabilityPublic)
				}
			case <-online:
				l.outlook.change(func() { l.outlook.since = time.Now() })
				l.client.Moved()
				changed = true
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// hear takes note of an event.
func (s *outlook) hear(e any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := e.(type) {
	case event.EvtLocalReachabilityChanged:
		s.verdict = e.Reachability
	case event.EvtHostReachableAddrsChanged:
		s.probed = e.Reachable
	case event.EvtAutoRelayAddrsUpdated:
		s.relays = e.RelayAddrs
	case event.EvtNATDeviceTypeChanged:
		if s.nats == nil {
			s.nats = make(map[network.NATTransportProtocol]network.NATDeviceType)
		}
		s.nats[e.TransportProtocol] = e.NatDeviceType
	}
}

// nat is what kind of NAT is before the node. Holes are punched over UDP where
// there is QUIC, which is the one that counts.
func (s *outlook) nat() NAT {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, transport := range []network.NATTransportProtocol{network.NATTransportUDP, network.NATTransportTCP} {
		switch s.nats[transport] {
		case network.NATDeviceTypeEndpointIndependent:
			return SamePort
		case network.NATDeviceTypeEndpointDependent:
			return AnyPort
		default:
		}
	}
	return ""
}

// innerRouter is the outer address of a router that maps ports, but is behind another
// NAT, so that they lead nowhere; zero otherwise.
func (s *outlook) innerRouter() netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if narhost.IsTranslated(s.router) {
		return s.router
	}
	return netip.Addr{}
}

func (s *outlook) now() network.Reachability {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdict
}

// confirmed reports whether others have reached an address of the node.
func (s *outlook) confirmed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.probed) > 0
}

// relaying returns the relays that lead to the node.
func (s *outlook) relaying() []peer.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return relaysOf(s.relays)
}

// punched hears how the attempt has ended to punch a hole for a peer.
func (l *live) punched(p peer.ID, ok bool) {
	now, renew := time.Now(), false
	l.outlook.change(func() {
		if ok {
			l.outlook.punches++
			return
		}
		l.outlook.failures++
		if renew = l.outlook.punches > 0 && l.cfg.private() && now.Sub(l.outlook.renewed) >= renewInterval; renew {
			l.outlook.renewed = now
		}
	})
	if ok {
		return
	}
	if n := l.live.Load(); n != nil { // else it is still being put together
		n.client.Unpunched(p)
	}
	if renew {
		time.AfterFunc(renewDelay, l.renewRelays)
	}
}

// renewRelays connects with relays anew. Where holes could be punched and cannot any
// more, that may be because the router has got another address: the connections
// have moved to that without a word, and relays, which may be all there is to tell
// a node how others see it, do so when a connection is made.
func (l *live) renewRelays() {
	for _, relay := range l.outlook.relaying() {
		if l.carriesNARs(relay) {
			continue
		}
		l.log.Debug("connecting with a relay anew, as a hole could not be punched", zap.Stringer("relay", relay))
		_ = l.host.Network().ClosePeer(relay) // It may be gone, or the host.
	}
}

// carriesNARs reports whether NARs are under way through a relay.
func (l *live) carriesNARs(relay peer.ID) bool {
	nar := exchange.Protocols(routing.Prefix(l.cfg.Network))[2]
	for _, c := range l.host.Network().Conns() {
		if !slices.Contains(relaysOf([]ma.Multiaddr{c.RemoteMultiaddr()}), relay) || !narhost.IsRelayed(c.RemoteMultiaddr()) {
			continue
		}
		if slices.ContainsFunc(c.GetStreams(), func(st network.Stream) bool { return st.Protocol() == nar }) {
			return true
		}
	}
	return false
}

// traverses reports whether the node is one that NATs may stand before.
func (l *live) traverses() bool {
	return !l.cfg.Infrastructure && l.cfg.Profile != LAN && len(l.cfg.Listen) > 0 && !narhost.OnlyLoopback(l.cfg.Listen)
}

// meetsRelays reports whether there is a relay to take: in a named network one of
// the bootstrap nodes that were met, in the public one anybody.
func (l *live) meetsRelays() bool {
	return !l.cfg.private() || slices.ContainsFunc(l.cfg.bootstrap(), func(info peer.AddrInfo) bool {
		relays, err := l.host.Peerstore().SupportsProtocols(info.ID, circuit.ProtoIDv2Hop)
		return err == nil && len(relays) > 0
	})
}

// Reach is how others can reach a node.
type Reach string

const (
	// Local is a node that nobody from afar is to reach.
	Local Reach = "local"
	// Reachable is one that can be connected with.
	Reachable Reach = "reachable"
	// Relayed is one behind a NAT that a relay leads to, over which a direct
	// connection is then made.
	Relayed Reach = "relayed"
	// Unreachable is one that others cannot connect with: it has to come to them.
	Unreachable Reach = "unreachable"
	// Unsettled is one of which that is not known yet.
	Unsettled Reach = "unknown"
)

// NAT is what a NAT does with the node's ports, as far as a few peers have seen it;
// "" is not known.
type NAT string

const (
	// SamePort is one that all peers see at the same port, as without any: holes can
	// be punched in it.
	SamePort NAT = "same port"
	// AnyPort is one that each peer sees at another port: holes can hardly be punched.
	AnyPort NAT = "any port"
)

// ReachStatus says how others can reach the node, and what could be done about it.
type ReachStatus struct {
	Reach Reach
	// Why is a sentence, and Remedy another, or "".
	Why, Remedy string
	// Relays are those that lead to the node.
	Relays []peer.ID
	NAT    NAT
}

// reachStatus tells how others can reach the node.
func (l *live) reachStatus() ReachStatus {
	status := l.seen()
	status.NAT = l.outlook.nat()
	return status
}

// seen is how others see the node, but for the NAT.
func (l *live) seen() ReachStatus {
	l.outlook.mu.Lock()
	verdict, probed, addrs, since := l.outlook.verdict, l.outlook.probed, l.outlook.relays, l.outlook.since
	l.outlook.mu.Unlock()
	relays := relaysOf(addrs)
	settled := time.Since(since) > settleTime
	switch {
	case l.cfg.Profile == LAN:
		return ReachStatus{Reach: Local, Why: "Only the local network is to reach this node."}
	case len(l.cfg.Listen) == 0 || narhost.OnlyLoopback(l.cfg.Listen):
		return ReachStatus{Reach: Local, Why: "p2p.listen has no address that others could reach."}
	case l.cfg.Profile == Consume:
		return ReachStatus{Reach: Local, Why: "Profile consume serves nobody, so nobody has to reach this node."}
	case settled && len(l.host.Network().Peers()) == 0:
		return ReachStatus{
			Reach: Unreachable, Why: "No peer is connected: this machine is offline, or nobody that this node knows can be reached.",
			Remedy: unlessEmpty(l.cfg.bootstrap(), "Check the network, and whether what p2p.bootstrap names is up.", "Name nodes to start from in p2p.bootstrap."),
		}
	case verdict == network.ReachabilityPublic || len(probed) > 0:
		return ReachStatus{Reach: Reachable, Why: "Others can connect with this node" + l.mappedText(probed) + "."}
	case len(relays) > 0:
		return ReachStatus{
			Reach: Relayed, Relays: relays,
			Why:    fmt.Sprintf("Behind a NAT or a firewall. Others find this node through %s, and then connect directly where the NATs allow it.", relaysText(len(relays))),
			Remedy: "To be reached by everybody, " + l.forwardText() + ".",
		}
	case !settled:
		return ReachStatus{Reach: Unsettled, Why: "Just started, or the network has changed: how others can reach this node is being found out."}
	case verdict == network.ReachabilityPrivate:
		return ReachStatus{
			Reach: Unreachable, Why: "Behind a NAT or a firewall, and " + l.noRelayText() + ". This node can fetch, and serve those that it has connected with.",
			Remedy: l.relayRemedy(),
		}
	default:
		return ReachStatus{Reach: Unsettled, Why: "No peer was able to say whether this node can be reached."}
	}
}

func unlessEmpty[T any](list []T, some, none string) string {
	if len(list) == 0 {
		return none
	}
	return some
}

func relaysText(n int) string {
	if n == 1 {
		return "a relay"
	}
	return fmt.Sprintf("%d relays", n)
}

// relaysOf returns the relays of circuit addresses, each once.
func relaysOf(addrs []ma.Multiaddr) []peer.ID {
	var relays []peer.ID
	for _, addr := range addrs {
		text, err := addr.ValueForProtocol(ma.P_P2P)
		if err != nil {
			continue
		}
		if id, err := peer.Decode(text); err == nil && !slices.Contains(relays, id) {
			relays = append(relays, id)
		}
	}
	return relays
}

// mappedText says so where the node is reached at an address that is not its own.
func (l *live) mappedText(probed []ma.Multiaddr) string {
	own, err := manet.ResolveUnspecifiedAddresses(l.host.Network().ListenAddresses(), nil)
	if err != nil {
		return ""
	}
	foreign := slices.ContainsFunc(probed, func(a ma.Multiaddr) bool { return !ma.Contains(own, a) })
	if foreign || !narhost.HasPublicIPv4(l.host.Network()) {
		return ", whose port the router forwards to it"
	}
	return ""
}

// forwardText says which ports to forward, or what else helps where the router does
// that in vain.
func (l *live) forwardText() string {
	if outer := l.outlook.innerRouter(); outer.IsValid() {
		return fmt.Sprintf("ask your provider for a public IPv4 address, or for IPv6: the router maps ports, but is itself behind a NAT, at %s", outer)
	}
	var ports []string
	for _, addr := range l.cfg.Listen {
		for protocol, name := range map[int]string{ma.P_TCP: "TCP ", ma.P_UDP: "UDP "} {
			if port, err := addr.ValueForProtocol(protocol); err == nil && port != "0" && !slices.Contains(ports, name+port) {
				ports = append(ports, name+port)
			}
		}
	}
	slices.Sort(ports)
	text := "the port of this node"
	if len(ports) > 0 {
		text = strings.Join(ports, " and ")
	}
	return "switch on port mapping (UPnP or NAT-PMP) in the router, or have it forward " + text + " to this machine"
}

// noRelayText says why there is no relay.
func (l *live) noRelayText() string {
	switch {
	case !l.cfg.private():
		return "no peer was found that would relay for it"
	case len(l.cfg.Bootstrap) == 0:
		return "no relay is known"
	default:
		return "no node in p2p.bootstrap relays for it"
	}
}

// relayRemedy says how the node could be reached after all.
func (l *live) relayRemedy() string {
	forward := l.forwardText()
	if !l.cfg.private() {
		return strings.ToUpper(forward[:1]) + forward[1:] + "."
	}
	return "Name a node with role infrastructure in p2p.bootstrap; or " + forward + "."
}
