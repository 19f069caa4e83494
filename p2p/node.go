package p2p

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p/allow"
	"github.com/nar-p2p/nar-p2p/p2p/banned"
	"github.com/nar-p2p/nar-p2p/p2p/delegated"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/known"
	"github.com/nar-p2p/nar-p2p/p2p/locate"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/site"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// Shelf is what the node serves and announces; share.Catalog is one. A node
// that does neither never calls it.
type Shelf interface {
	exchange.Shelf
	Follow(ctx context.Context, f func(share.Change) error) error
}

// Node is a node among peers. Its methods are safe for concurrent use; while
// Run does not run they find nothing.
type Node struct {
	cfg     Config
	shelf   Shelf
	log     *zap.Logger
	allowed *allow.List
	bans    *banned.List
	// configured holds Bootstrap and Peers, which are connected with in any case.
	configured map[peer.ID]struct{}
	ready      chan struct{}
	pause      *pause
	sites      *site.Rules
	// uploadLimit is in bytes per second, 0 for none.
	uploadLimit atomic.Int64
	// measuring is held while a peer is being measured.
	measuring sync.Mutex
	// announceBudget is in bytes a day, 0 for none.
	announceBudget atomic.Int64
	// live is nil while Run does not run.
	live atomic.Pointer[live]
}

// live is what a node consists of while it runs.
type live struct {
	*Node

	host      host.Host
	bandwidth *metrics.BandwidthCounter
	// router is nil where only neighbours are asked; dht and endpoints are what it
	// consists of, or nil.
	router    routing.Router
	endpoints *delegated.Client
	// shows is nil where nobody is told what the node shares.
	shows *shown
	// newAnnouncer is nil where nothing is ever announced, announcer while nothing
	// is. The server is nil where nobody is served.
	dht          *routing.DHT
	newAnnouncer func() *routing.Announcer
	announcer    atomic.Pointer[routing.Announcer]
	server       *exchange.Server
	client       *exchange.Client
	standing     *swarm.Standing
	ledger       *locate.Ledger
	finder       *locate.Finder
	swarm        *swarm.Swarm
	// known remembers peers for the next start; nil where dht is.
	known *known.Book
	// foreign counts the connections that sendAway has closed.
	foreign atomic.Int64
	// online tells that a network has come, moved that interfaces have changed.
	online, moved signal

	outlook outlook
	// relayed counts what infrastructure relays.
	relayed narhost.RelayMeter
}

// New returns a node that does nothing before Run.
func New(cfg Config, shelf Shelf, log *zap.Logger) (*Node, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	n := &Node{
		cfg:        cfg,
		shelf:      shelf,
		log:        log.Named("p2p"),
		configured: make(map[peer.ID]struct{}),
		ready:      make(chan struct{}),
		pause:      newPause(),
	}
	n.uploadLimit.Store(cfg.UploadLimit)
	sites, err := site.New(cfg.Sites)
	if err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	n.sites = sites
	n.announceBudget.Store(cfg.AnnounceBudget)
	if n.allowed, err = allow.Open(cfg.AllowFile, cfg.Allow, n.log); err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	if n.bans, err = banned.Open(context.Background(), cfg.Datastore("banned")); err != nil {
		n.log.Warn("nobody is banned any more", zap.Error(err))
	}
	for _, infos := range [][]peer.AddrInfo{cfg.Bootstrap, cfg.Peers} {
		for _, info := range infos {
			n.configured[info.ID] = struct{}{}
		}
	}
	if cfg.private() && !n.allowed.Exists() && cfg.PSK == nil {
		n.log.Warn("private network without an allow-list: whoever knows its name is answered", zap.String("network", cfg.Network))
	}
	if err := n.dropQUIC(); err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	return n, nil
}

// dropQUIC leaves out what cannot be listened on with a pre-shared key.
func (n *Node) dropQUIC() error {
	if n.cfg.PSK == nil {
		return nil
	}
	left, dropped := narhost.WithoutQUIC(n.cfg.Listen)
	switch {
	case len(dropped) == 0:
		return nil
	case len(left) == 0:
		return errors.New("a network with a pre-shared key has no QUIC: listen on a TCP address")
	}
	n.cfg.Listen = left
	n.log.Info("not listening on QUIC, which cannot carry a pre-shared key", zap.Stringers("addresses", dropped))
	return nil
}

// LimitUploads changes how many bytes per second peers are sent in all, at once;
// 0 sets no limit.
func (n *Node) LimitUploads(bytesPerSecond int64) {
	n.uploadLimit.Store(bytesPerSecond)
	if l := n.live.Load(); l != nil && l.server != nil {
		l.server.LimitUploads(bytesPerSecond)
	}
}

// BudgetAnnouncing changes how many bytes a day may be sent to tell the public
// network what the node holds; 0 sets no limit.
func (n *Node) BudgetAnnouncing(bytesPerDay int64) {
	if n.announceBudget.Swap(bytesPerDay) != bytesPerDay {
		n.pause.renew()
	}
}

// Ready is closed once the node listens.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Run takes part in the network until ctx ends, and then returns its error. It
// runs once.
func (n *Node) Run(ctx context.Context) error {
	l, err := n.start()
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	if err := l.standing.Recall(ctx, n.cfg.Datastore("standing-"+n.cfg.Network)); err != nil {
		n.log.Warn("peer records not read", zap.Error(err))
	}
	n.live.Store(l)
	l.obeyPause()                        // which may have been called before
	n.LimitUploads(n.uploadLimit.Load()) // which may just have changed
	close(n.ready)
	n.log.Info("listening", zap.Stringer("peer", l.host.ID()), zap.Stringers("addresses", l.host.Addrs()),
		zap.String("profile", string(n.cfg.Profile)), zap.String("network", n.cfg.Network))
	// The announcer has closed its provider and its keystore when run returns;
	// then the host goes, and then the DHT, whose handlers it runs.
	err = l.run(ctx)
	n.live.Store(nil)
	return errors.Join(err, l.close())
}

// start builds what the node consists of.
func (n *Node) start() (*live, error) {
	l := &live{
		Node:      n,
		bandwidth: metrics.NewBandwidthCounter(),
		standing:  swarm.NewStanding(),
	}
	cfg := &n.cfg
	prefix := routing.Prefix(cfg.Network)
	var routingHolder atomic.Pointer[routing.DHT]
	hostCfg := &narhost.Config{
		Identity:       cfg.Identity,
		Listen:         cfg.Listen,
		Member:         n.member,
		PSK:            cfg.PSK,
		LANOnly:        cfg.Profile == LAN,
		Infrastructure: cfg.Infrastructure,
		Protocols:      exchange.Protocols(prefix),
		Service:        exchange.ServiceName,
		UserAgent:      cfg.UserAgent,
		Family:         cfg.family(),
		Bandwidth:      l.bandwidth,
		Registerer:     cfg.Registerer,
		DataRelay:      cfg.DataRelay,
		RelayMeter:     &l.relayed,
		Punched:        l.punched,
		Router:         func(outer netip.Addr) { l.outlook.change(func() { l.outlook.router = outer }) },
		Providers:      narhost.NewProviders(),
	}
	switch cfg.Profile {
	case Private:
		hostCfg.Relays = cfg.Bootstrap
	case Public:
		hostCfg.RelaySource = func(num int) []peer.AddrInfo {
			if d := routingHolder.Load(); d != nil {
				return d.Peers(num)
			}
			return nil
		}
	case Consume, LAN: // Nobody needs to reach it from afar.
	}
	var err error
	if l.host, err = narhost.New(hostCfg); err != nil {
		return nil, err
	}
	if err := l.route(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	routingHolder.Store(l.dht)
	l.ledger = locate.NewLedger()
	l.client = exchange.NewClient(l.host, exchange.ClientConfig{Prefix: prefix, Observer: l.ledger, Relays: n.relaysData}, n.log)
	if cfg.Profile.serves() {
		l.server = exchange.NewServer(l.host, n.shelf, exchange.ServerConfig{
			Prefix: prefix, Admit: n.admit, Relays: n.relaysData, Registerer: cfg.Registerer,
		}, n.log)
	}
	locateCfg := locate.Config{
		Client: l.client, Book: providerBook{l.host.Peerstore(), hostCfg.Providers}, Neighbours: l.neighbours, Reach: l.reach, Usable: l.standing.Usable, Rate: l.standing.Rate,
		Ledger: l.ledger, JoinPatience: l.joinPatience(), Registerer: cfg.Registerer,
	}
	if l.router != nil {
		locateCfg.DHT = l.router
	}
	l.finder = locate.New(locateCfg, n.log)
	l.swarm = swarm.New(l.client, l.finder, l.standing, swarm.Config{
		Trusted: n.trusted, LAN: n.isLAN, Memory: cfg.Memory, Window: cfg.Window, Reuse: cfg.Reuse, Registerer: cfg.Registerer,
	}, n.log)
	return l, nil
}

// joinDHT joins the DHT.
func (l *live) joinDHT() error {
	cfg := &l.cfg
	routingCfg := &routing.Config{
		Network:   cfg.Network,
		Role:      cfg.role(),
		Announced: narhost.Announced(cfg.Listen),
		Datastore: cfg.Datastore,
	}
	d, err := routing.Join(routing.Paced(l.host), routingCfg)
	if err != nil {
		return err
	}
	l.dht = d
	l.known = known.New(cfg.Datastore("peers-" + cfg.Network))
	if cfg.Profile.announces() {
		l.newAnnouncer = func() *routing.Announcer {
			now := *routingCfg
			if !cfg.private() {
				now.AnnounceBudget = l.announceBudget.Load()
			}
			return routing.NewAnnouncer(d, l.shelf, &now, l.log)
		}
		if cfg.Answers {
			l.shows = newShown(l.shelf)
		}
	}
	return nil
}

func (l *live) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.finder.Run(ctx) })
	g.Go(func() error { return l.standing.Run(ctx, l.log) })
	if l.server != nil {
		g.Go(func() error { return l.server.Run(ctx) })
	}
	if n := l.Node; n.sites.BansSharing() {
		g.Go(func() error { return n.watchSite(ctx) })
	}
	if l.newAnnouncer != nil {
		g.Go(func() error { return l.announce(ctx) })
	}
	if l.shows != nil {
		g.Go(func() error { return l.shows.run(ctx) })
	}
	g.Go(func() error { return l.watch(ctx) })
	g.Go(func() error { return l.judge(ctx) })
	g.Go(func() error { return l.watchPeers(ctx) })
	g.Go(func() error { return l.watchConnections(ctx) })
	g.Go(func() error { return l.watchReturns(ctx) })
	g.Go(func() error { return l.connect(ctx) })
	if l.cfg.private() {
		g.Go(func() error { return l.sendAway(ctx) })
	}
	g.Go(func() error { return l.allowed.Run(ctx, l.dropOutsiders) })
	if !narhost.OnlyLoopback(l.cfg.Listen) {
		g.Go(func() error { return l.discover(ctx) })
	}
	return g.Wait()
}

func (l *live) close() error {
	err := l.host.Close()
	if l.dht != nil {
		err = errors.Join(err, l.dht.Close())
	}
	if l.endpoints != nil {
		err = errors.Join(err, l.endpoints.Close())
	}
	return err
}

// exclusive reports whether the allow-list says who may connect at all.
func (n *Node) exclusive() bool { return n.cfg.private() && n.allowed.Exists() }

// member reports whether a peer is one to connect with.
func (n *Node) member(p peer.ID) bool {
	_, configured := n.configured[p]
	return !n.bans.Banned(p) && (!n.exclusive() || configured || n.familiar(p))
}

// dropOutsiders closes the connections with those that are banned, or that the
// allow-list no longer names.
func (l *live) dropOutsiders() {
	if dropped := narhost.DropOutsiders(l.host, l.member); dropped > 0 {
		l.log.Info("disconnected from peers that are banned or no longer allowed", zap.Int("peers", dropped))
	}
}

// admit reports whether the peer at the other side of a connection gets answers.
func (n *Node) admit(c network.Conn) bool {
	ban := n.sites.Conn(c.LocalMultiaddr(), c.RemoteMultiaddr())
	if ban.Share || n.cfg.Profile == LAN && (ban.LAN || !narhost.IsLAN(c.RemoteMultiaddr())) {
		return false
	}
	p := c.RemotePeer()
	return !n.bans.Banned(p) && (!n.exclusive() || n.familiar(p))
}

// isLAN reports whether a peer at this address is a neighbour.
func (n *Node) isLAN(addr ma.Multiaddr) bool { return narhost.IsLAN(addr) && !n.sites.Remote(addr).LAN }

// relaysData reports whether NARs may go over a relay: one of one's own network
// that is configured, and that lets so much through that it is meant for them.
func (n *Node) relaysData(relay peer.ID, volume int64) bool {
	_, configured := n.configured[relay]
	return n.cfg.private() && configured && (volume == 0 || volume >= narhost.MinRelayVolume)
}

// trusted reports whether a peer's word on a manifest counts before others'.
func (n *Node) trusted(p peer.ID, addr ma.Multiaddr) bool {
	return n.cfg.private() || n.familiar(p) || addr != nil && n.isLAN(addr)
}

// familiar reports whether a peer is in the allow-list.
func (n *Node) familiar(p peer.ID) bool { return n.allowed.Has(p) }
