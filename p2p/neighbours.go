package p2p

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"

	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/locate"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// Weights of peers when connections are trimmed. The DHT's are 5 to 10.
const (
	speakerWeight   = 20
	neighbourWeight = 50
	speakerTag      = "nar-p2p"
	neighbourTag    = "nar-p2p-neighbour"
)

// trimInterval is how often the bandwidth counters of peers long gone are
// dropped.
const trimInterval = time.Hour

// joinPatience is how long it may take to meet the first neighbour: mDNS repeats
// itself after a second.
const joinPatience = 3 * time.Second

// nearness orders the peers to ask.
type nearness int

const (
	far nearness = iota
	member
	configured
	onLAN
)

// nearness says how near a connected peer is; far peers are not asked without
// reason.
func (l *live) nearness(p peer.ID) nearness {
	for _, c := range l.host.Network().ConnsToPeer(p) {
		if l.isLAN(c.RemoteMultiaddr()) {
			return onLAN
		}
	}
	switch {
	case l.familiar(p) || slices.ContainsFunc(l.cfg.Peers, func(i peer.AddrInfo) bool { return i.ID == p }):
		return configured
	case l.cfg.private():
		return member
	default:
		return far
	}
}

// reach says how a peer can be reached.
func (l *live) reach(p peer.ID) locate.Reach {
	best := locate.Relayed
	for _, c := range l.host.Network().ConnsToPeer(p) {
		switch {
		case l.isLAN(c.RemoteMultiaddr()):
			return locate.LAN
		case !c.Stat().Limited:
			best = locate.Connected
		}
	}
	if best == locate.Relayed && slices.ContainsFunc(l.host.Peerstore().Addrs(p), narhost.IsDirect) {
		return locate.Direct
	}
	return best
}

// joinPatience is how long the first neighbour is waited for after the start,
// or Nix would be told right after it that nobody has what it asks for.
func (l *live) joinPatience() time.Duration {
	if narhost.OnlyLoopback(l.cfg.Listen) && len(l.cfg.Peers)+len(l.cfg.Bootstrap) == 0 {
		return 0 // Nobody will come.
	}
	return joinPatience
}

// speaks reports whether a connected peer answers the stream protocols.
func (l *live) speaks(p peer.ID) bool {
	spoken, err := l.host.Peerstore().SupportsProtocols(p, exchange.Protocols(routing.Prefix(l.cfg.Network))...)
	return err == nil && len(spoken) > 0
}

// neighbours returns the connected peers to ask first, the nearest first. With
// strangers false on the public network these are allow-listed ones only.
func (l *live) neighbours(strangers bool) []peer.ID {
	near := make(map[peer.ID]nearness)
	var peers []peer.ID
	for _, p := range l.host.Network().Peers() {
		if !strangers && !l.cfg.private() && !l.familiar(p) {
			continue
		}
		if n := l.nearness(p); n != far && l.speaks(p) && l.standing.Usable(p) {
			near[p] = n
			peers = append(peers, p)
		}
	}
	slices.SortStableFunc(peers, func(a, b peer.ID) int { return cmp.Compare(near[b], near[a]) })
	return peers
}

// watch follows the host's events until ctx ends.
func (l *live) watch(ctx context.Context) error {
	sub, err := l.host.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtPeerProtocolsUpdated),
		new(event.EvtLocalProtocolsUpdated),
	}, eventbus.Name("nar-p2p"), eventbus.BufSize(256))
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	defer sub.Close()
	trim := time.NewTicker(trimInterval)
	defer trim.Stop()
	for _, p := range l.host.Network().Peers() {
		l.identified(p)
	}
	for {
		select {
		case e := <-sub.Out():
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				l.identified(e.Peer)
			case event.EvtPeerProtocolsUpdated:
				l.identified(e.Peer)
			case event.EvtLocalProtocolsUpdated:
				if slices.Contains(e.Added, holepunch.Protocol) {
					l.client.Punches()
				}
			}
		case <-trim.C:
			l.bandwidth.TrimIdle(time.Now().Add(-trimInterval))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// identified takes note of what a peer speaks.
func (l *live) identified(p peer.ID) {
	if !l.speaks(p) {
		return
	}
	conns := l.host.ConnManager()
	conns.TagPeer(p, speakerTag, speakerWeight)
	if l.nearness(p) != far {
		conns.TagPeer(p, neighbourTag, neighbourWeight)
		l.finder.Neighbour(p)
	}
}
