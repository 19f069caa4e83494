package p2p

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/lan"
)

const (
	// maxFound bounds the peers of the local network that are remembered, and
	// maxMeeting those that are dialled at once. Anyone can announce any number.
	maxFound    = 256
	maxMeeting  = 4
	meetTimeout = 10 * time.Second
	// A peer that cannot be reached, or was lost, is dialled again after
	// firstMeeting, and then ever more rarely up to lastMeeting; until nothing was
	// heard of it for foundTTL. Peers announce themselves every few minutes.
	firstMeeting = time.Second
	lastMeeting  = time.Minute
	foundTTL     = 10 * time.Minute
)

// serviceName is the name under which the nodes of a network find each other
// on the local network. A private network's own name is nobody's business, so
// its hash stands for it.
func serviceName(networkName string) string {
	if networkName == PublicNetwork {
		return "_nar-p2p._udp"
	}
	sum := sha256.Sum256([]byte(networkName))
	return "_nar-p2p-" + hex.EncodeToString(sum[:4]) + "._udp"
}

// discover announces the node on the local network, and keeps connected with
// those that it finds there, until ctx ends. A consumer announces itself too:
// whichever of two nodes hears the other first dials.
func (l *live) discover(ctx context.Context) error {
	r := &room{peers: make(map[peer.ID]*found), wake: make(chan struct{}, 1)}
	notifiee := &network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) { r.lost(c.RemotePeer()) }}
	l.host.Network().Notify(notifiee)
	defer l.host.Network().StopNotify(notifiee)
	cfg := lan.Config{
		Service: serviceName(l.cfg.Network), Peer: l.host.ID(), Addrs: l.lanAddrs,
		Changed: l.leaveOldAddresses, Found: r.enter,
		On: func(i *net.Interface) bool { return !l.sites.Interface(i).MDNS },
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return lan.Run(ctx, cfg, l.log) })
	g.Go(func() error { return r.meet(ctx, l.meet) })
	return g.Wait()
}

// lanAddrs returns the addresses to be dialled at from the local network, those
// of now.
func (l *live) lanAddrs() []ma.Multiaddr {
	addrs, err := manet.ResolveUnspecifiedAddresses(l.host.Network().ListenAddresses(), nil)
	if err != nil {
		return nil
	}
	return narhost.Announced(nil)(ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool { return narhost.IsLAN(a) && !l.sites.Local(a).MDNS }))
}

// meet connects with a peer of the local network, and reports whether it is
// connected. One that announces itself anew may have left its connection behind.
func (l *live) meet(ctx context.Context, info peer.AddrInfo) bool {
	if l.host.Network().Connectedness(info.ID) == network.Connected && l.alive(ctx, info.ID, greetTimeout) {
		return true
	}
	// Whoever is in the room says when it is to be dialled, not libp2p.
	if s, ok := l.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, meetTimeout)
	defer cancel()
	if err := l.host.Connect(ctx, info); err != nil {
		l.log.Debug("cannot connect on the local network", zap.Stringer("peer", info.ID), zap.Error(err))
		return false
	}
	l.log.Debug("met on the local network", zap.Stringer("peer", info.ID))
	return true
}

// room holds the peers that were found on the local network.
type room struct {
	// wake tells meet of somebody to be dialled.
	wake chan struct{}

	mu    sync.Mutex
	peers map[peer.ID]*found
}

// found is a peer of the local network.
type found struct {
	addrs []ma.Multiaddr
	// heard is when it last announced itself.
	heard time.Time
	// due is when it is to be dialled; zero for not at all.
	due      time.Time
	failures int
}

// enter takes a peer that has announced itself, with its addresses of the local
// network only: a stranger must not make the node dial elsewhere.
func (r *room) enter(info peer.AddrInfo) {
	addrs := ma.FilterAddrs(info.Addrs, func(a ma.Multiaddr) bool { return narhost.IsLAN(a) && !narhost.IsLoopback(a) })
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.peers[info.ID]
	switch {
	case len(addrs) == 0 || f == nil && len(r.peers) == maxFound:
		return
	case f == nil:
		f = &found{}
		r.peers[info.ID] = f
	}
	f.addrs, f.heard, f.due, f.failures = addrs, time.Now(), time.Now(), 0
	r.poke()
}

// lost has a peer dialled again that is no longer connected.
func (r *room) lost(p peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.peers[p]; f != nil && f.due.IsZero() {
		f.failures = 0
		f.retry(time.Now())
		r.poke()
	}
}

func (r *room) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// retry has a peer dialled again after a while, which differs from what the other
// side takes.
func (f *found) retry(now time.Time) {
	wait := min(firstMeeting<<min(f.failures, 10), lastMeeting)
	f.due = now.Add(wait/2 + rand.N(wait))
	f.failures++
}

// meet dials who is to be dialled until ctx ends.
func (r *room) meet(ctx context.Context, dial func(context.Context, peer.AddrInfo) bool) error {
	var dials errgroup.Group
	dials.SetLimit(maxMeeting)
	defer func() { _ = dials.Wait() }() // They have no errors.
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, next := r.due(time.Now())
		for _, info := range due {
			dials.Go(func() error {
				r.tried(info.ID, dial(ctx, info))
				return nil
			})
		}
		timer.Reset(time.Until(next))
		select {
		case <-r.wake:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// due returns who is to be dialled now, and when to ask again. Who was not heard
// of for long is forgotten.
func (r *room) due(now time.Time) (due []peer.AddrInfo, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next = now.Add(foundTTL)
	for p, f := range r.peers {
		switch {
		case f.due.IsZero():
		case f.due.After(now):
			if f.due.Before(next) {
				next = f.due
			}
		case now.Sub(f.heard) >= foundTTL:
			delete(r.peers, p)
		default:
			f.due = time.Time{}
			due = append(due, peer.AddrInfo{ID: p, Addrs: f.addrs})
		}
	}
	return due, next
}

// tried takes note of how a dial went.
func (r *room) tried(p peer.ID, connected bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.peers[p]
	if f == nil || !f.due.IsZero() {
		return
	}
	if connected {
		f.failures = 0
		return
	}
	f.retry(time.Now())
	r.poke()
}
