package p2p

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
)

// Peers found on the local network wait in a queue for one of maxMeeting to
// connect with them. Anyone can announce any number of them.
const (
	maxFound    = 64
	maxMeeting  = 4
	meetTimeout = 10 * time.Second
)

// mdnsRetry is how long to wait where mDNS cannot be had, as on a machine that
// is offline.
const mdnsRetry = time.Minute

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

// found is the queue of peers that mDNS found.
type found chan peer.AddrInfo

// HandlePeerFound implements mdns.Notifee.
func (f found) HandlePeerFound(info peer.AddrInfo) {
	select {
	case f <- info:
	default: // It will announce itself again.
	}
}

// discover announces the node on the local network, and connects with those
// that it finds there, until ctx ends. A consumer announces itself too: whichever
// of two nodes hears the other first dials.
func (l *live) discover(ctx context.Context) error {
	queue := make(found, maxFound)
	g, ctx := errgroup.WithContext(ctx)
	for range maxMeeting {
		g.Go(func() error {
			for {
				select {
				case info := <-queue:
					l.meet(ctx, info)
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}
	g.Go(func() error { return l.announceLocally(ctx, queue) })
	return g.Wait()
}

// announceLocally runs mDNS, anew after each change of the node's addresses,
// which mDNS takes note of only when it starts.
func (l *live) announceLocally(ctx context.Context, queue found) error {
	sub, err := l.host.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.Name("nar-p2p-mdns"))
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	defer sub.Close()
	for {
		var retry <-chan time.Time
		service := mdns.NewMdnsService(l.host, serviceName(l.cfg.Network), queue)
		if err := service.Start(); err != nil {
			l.log.Info("no mDNS", zap.Error(err), zap.Duration("retry", mdnsRetry))
			retry = time.After(mdnsRetry)
		}
		select {
		case <-sub.Out():
		case <-retry:
		case <-ctx.Done():
		}
		if err := service.Close(); err != nil {
			l.log.Debug("close mDNS", zap.Error(err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// meet connects with a peer that mDNS found, at addresses of the local network
// only: a stranger must not make the node dial elsewhere.
func (l *live) meet(ctx context.Context, info peer.AddrInfo) {
	info.Addrs = ma.FilterAddrs(info.Addrs, func(a ma.Multiaddr) bool {
		return narhost.IsLAN(a) && !narhost.IsLoopback(a)
	})
	if len(info.Addrs) == 0 || l.host.Network().Connectedness(info.ID) == network.Connected {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, meetTimeout)
	defer cancel()
	if err := l.host.Connect(ctx, info); err != nil {
		l.log.Debug("cannot connect on the local network", zap.Stringer("peer", info.ID), zap.Error(err))
		return
	}
	l.log.Debug("met on the local network", zap.Stringer("peer", info.ID))
}
