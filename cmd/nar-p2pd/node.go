package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/moment"
	"github.com/nar-p2p/nar-p2p/internal/version"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/substituter"
)

// node is the daemon as p2pctl sees it.
type node struct{ *daemon }

var _ control.Node = node{}

// Status implements control.Node.
func (n node) Status() control.Status {
	first, second := visible(n.settings.current())
	stats := n.substituter.Stats()
	s := control.Status{
		Version:     version.String(),
		Started:     moment.Shown(n.started),
		Profile:     string(n.cfg.Profile),
		Network:     n.cfg.Network,
		Role:        n.cfg.Role,
		Visible:     first + " " + second,
		Substituter: urlOf(n.http),
		ConfigFile:  n.cfg.File,
		StateDir:    n.cfg.StateDir,
		Store:       control.StoreStatus{Kind: n.store.kind, Location: n.store.location, Shareable: n.catalog.Len()},
		NARBytes:    stats.NARBytes,
		Sharing:     n.sharing.state(),
		Metered:     n.line.status(),
		Limits:      n.limits.status(),
		Upstreams:   make([]control.UpstreamStatus, len(stats.Upstreams)),

		StateSetAside: n.db.SetAside(),
	}
	if problem := n.db.Problem(); problem != nil {
		s.StateProblem = problem.Error()
	}
	for _, path := range n.catalog.Damaged() {
		s.Store.Damaged = append(s.Store.Damaged, path.String())
	}
	if problem := n.store.problem(); problem != nil {
		s.Store.Problem = problem.Error()
	}
	if example, ok := n.catalog.Example(); ok {
		s.Store.Example = example.HashPart.String()
	}
	for i, u := range stats.Upstreams {
		s.Upstreams[i] = control.UpstreamStatus(u)
	}
	if n.node != nil {
		s.P2P = p2pStatus(n.node.Status())
		s.P2P.Bootstrap, s.P2P.PSKFile = n.cfg.P2P.Bootstrap, n.cfg.P2P.PSKFile
	}
	if n.routing != nil {
		s.ServesRouting = urlOf(n.routing)
	}
	return s
}

// Config implements control.Node.
func (n node) Config() control.Config {
	return control.Config{File: n.cfg.File, Settings: n.settings.current().Effective()}
}

func p2pStatus(s p2p.Status) *control.P2PStatus {
	status := &control.P2PStatus{
		PeerID:       s.PeerID.String(),
		Addresses:    []string{},
		Allowed:      s.Allowed,
		Foreign:      s.Foreign,
		Connected:    s.Connected,
		Reachability: strings.ToLower(s.Reachability.String()),
		Routing:      "none",
		Away:         s.Away,
		Reach:        control.Reach{State: string(s.Reach.Reach), Why: s.Reach.Why, Remedy: s.Reach.Remedy, NAT: string(s.Reach.NAT)},
	}
	for _, relay := range s.Reach.Relays {
		status.Reach.Relays = append(status.Reach.Relays, relay.String())
	}
	if s.Relaying != nil {
		relaying := control.Relaying(*s.Relaying)
		status.Relaying = &relaying
	}
	if s.Reachability == network.ReachabilityUnknown {
		status.Reachability = "unknown"
	}
	for _, addr := range s.Announced {
		status.Addresses = append(status.Addresses, addr.String()+"/p2p/"+status.PeerID)
	}
	if s.DHT != nil {
		status.Routing, status.RoutingPeers = "client", s.DHT.Peers
		if s.DHT.Server {
			status.Routing = "server"
		}
	}
	for _, e := range s.Endpoints {
		endpoint := control.EndpointStatus{URL: e.URL, Usable: e.Usable}
		if e.Problem != nil {
			endpoint.Problem = e.Problem.Error()
		}
		status.Endpoints = append(status.Endpoints, endpoint)
	}
	if a := s.Announcing; a != nil {
		status.Announcing = &control.Announcing{
			Keys: a.Keys, Waiting: a.Waiting, Regions: a.Regions,
			Skipped: a.Skipped, Resting: a.Resting, SentBytes: a.SentBytes, Swept: a.Swept, Next: a.Next,
		}
	}
	if v := s.Served; v != nil {
		status.Served = &control.Served{
			Bytes: v.BytesServed, Sessions: v.Sessions, ActiveSessions: v.ActiveSessions, Queries: v.Queries, Refused: v.Refused,
		}
	}
	return status
}

// Peers implements control.Node.
func (n node) Peers() ([]control.Peer, error) {
	if n.node == nil {
		return nil, errNoPeers
	}
	connected := n.node.Peers()
	all := make([]control.Peer, len(connected))
	for i, p := range connected {
		all[i] = control.Peer{
			ID: p.ID.String(), Addresses: texts(p.Addrs), Agent: p.Agent,
			Exchange: p.Exchange, LAN: p.LAN, Allowed: p.Allowed, Relayed: p.Relayed,
			LatencySeconds: p.RTT.Seconds(), Received: p.Received, Sent: p.Sent,
		}
		if !p.RestsUntil.IsZero() {
			all[i].RestsUntil = &p.RestsUntil
		}
	}
	return all, nil
}

func texts(addrs []multiaddr.Multiaddr) []string {
	all := make([]string, len(addrs))
	for i, addr := range addrs {
		all[i] = addr.String()
	}
	return all
}

var errNoPeers = &control.Error{
	Status: http.StatusConflict, Message: "profile off has no peers", Hint: "set another profile in the configuration, such as consume",
}

var errNoNarinfo = &control.Error{
	Status: http.StatusNotFound, Message: "neither the store, an upstream nor a peer has a narinfo of it",
	Hint: "p2pctl status tells whether the upstreams answer and how many peers are connected",
}

// Provide implements control.Node.
func (n node) Provide(ctx context.Context, paths []nix.StorePath) []error {
	errs := make([]error, len(paths))
	var keys []share.Key
	for i, path := range paths {
		n.substituter.Present(path.HashPart())
		key, err := n.restore(ctx, path)
		errs[i] = err
		if err == nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return errs
	}
	err := n.node.Announce(ctx, keys...)
	// On the local network peers are simply asked.
	if err == nil || errors.Is(err, p2p.ErrNotAnnouncing) {
		return errs
	}
	for i := range errs {
		if errs[i] == nil {
			errs[i] = fmt.Errorf("is shared, but could not be announced yet: %w", err)
		}
	}
	return errs
}

// restore shares a path, or says why it cannot be.
func (n node) restore(ctx context.Context, path nix.StorePath) (share.Key, error) {
	if !n.serves() {
		return share.Key{}, errSharesNothing(n.cfg.Profile)
	}
	if err := n.catalog.Restore(ctx, path); err != nil {
		return share.Key{}, err
	}
	info, err := n.catalog.Narinfo(ctx, path.HashPart())
	if err != nil {
		return share.Key{}, err
	}
	return share.Key{HashPart: path.HashPart(), NARHash: info.NARHash, NARSize: info.NARSize}, nil
}

// Withdraw implements control.Node.
func (n node) Withdraw(_ context.Context, paths []nix.StorePath) []error {
	errs := make([]error, len(paths))
	for i, path := range paths {
		errs[i] = n.catalog.Withdraw(path)
	}
	return errs
}

// Find implements control.Node. To look something up is to tell the network of
// it: a path of which strangers must not hear is not found.
func (n node) Find(ctx context.Context, target control.Target) (*control.Found, iter.Seq[control.Provider], error) {
	switch {
	case n.node == nil:
		return nil, nil, errNoPeers
	case n.cfg.Profile == config.ProfileLAN:
		return nil, nil, &control.Error{
			Status: http.StatusConflict, Message: "profile lan has no DHT to look in", Hint: "p2pctl peers lists the peers of the local network",
		}
	}
	found := &control.Found{}
	hash := target.Hash
	if !target.IsHash {
		info, strangers, err := n.substituter.Lookup(ctx, target.Part)
		if errors.Is(err, narstore.ErrNotFound) || errors.Is(err, substituter.ErrUnknown) {
			return nil, nil, errNoNarinfo
		}
		if err != nil {
			return nil, nil, fmt.Errorf("narinfo of %s: %w", target.Part, err)
		}
		// What this node announces is no secret, wherever it knows it from. (The
		// NAR, not the path: a private upstream may have another build of it.)
		strangers = strangers || n.provides(info.NARHash)
		if n.cfg.Network == config.PublicNetwork && !strangers {
			return nil, nil, fmt.Errorf("%s: strangers are not asked about it: %w", info.StorePath, narstore.ErrNotFound)
		}
		hash, found.StorePath = info.NARHash, info.StorePath.String()
	}
	key := routing.ContentKey(hash)
	found.NARHash, found.CID = hash.String(), key.String()
	return found, func(yield func(control.Provider) bool) {
		self := n.node.Status()
		// The DHT is asked by this node, and seldom names it.
		if n.provides(hash) && !yield(control.Provider{ID: self.PeerID.String(), Addresses: texts(self.Announced), Self: true}) {
			return
		}
		for info := range n.node.FindProviders(ctx, key) {
			if info.ID != self.PeerID && !yield(control.Provider{ID: info.ID.String(), Addresses: texts(info.Addrs)}) {
				return
			}
		}
	}, nil
}

// provides reports whether peers get the NAR from this node.
func (n node) provides(hash nix.NARHash) bool {
	_, _, held := n.catalog.Held(hash)
	return held && n.serves()
}

// logReady tells where the daemon can be reached. Where peers can the node has
// told.
func (d *daemon) logReady() {
	d.log.Info("ready",
		zap.String("version", version.String()),
		zap.String("profile", string(d.cfg.Profile)),
		zap.String("substituter", urlOf(d.http)),
		zap.String("control", d.cfg.Control.Socket))
}

// nixSubstituters is what nix.conf should name as substituters: caches behind
// this node too, for when it is down.
func (d *daemon) nixSubstituters() string {
	caches := []string{urlOf(d.http)}
	for _, u := range d.substituter.Stats().Upstreams {
		if !u.Private {
			caches = append(caches, u.URL)
		}
	}
	return strings.Join(caches, " ")
}
