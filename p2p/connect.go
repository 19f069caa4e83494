package p2p

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// A peer that cannot be reached is tried again after firstRetry, and then ever
// more rarely up to lastRetry.
const (
	firstRetry     = time.Second
	lastRetry      = time.Minute
	connectTimeout = 15 * time.Second
	// steady is how long a connection lasts that was worth having.
	steady = time.Minute
)

// keptTag protects connections from being trimmed.
const keptTag = "nar-p2p-kept"

// connect brings the node into its network and keeps the connections that are
// to be kept, until ctx ends. In a private network that includes the bootstrap
// peers, which relay and are few. Those of the public network are left alone
// once the DHT knows others.
func (l *live) connect(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	keep := make(map[peer.ID]struct{})
	for _, info := range l.cfg.Peers {
		keep[info.ID] = struct{}{}
	}
	targets := append([]peer.AddrInfo(nil), l.cfg.Peers...)
	if l.cfg.Profile != LAN || l.cfg.private() {
		targets = append(targets, l.cfg.bootstrap()...)
	}
	for _, info := range targets {
		if info.ID == l.host.ID() {
			continue
		}
		_, kept := keep[info.ID]
		g.Go(func() error { return l.keep(ctx, info, kept || l.cfg.private()) })
	}
	return g.Wait()
}

// keep connects with a peer, for good or until it has once succeeded.
func (l *live) keep(ctx context.Context, info peer.AddrInfo, forGood bool) error {
	if forGood {
		l.host.ConnManager().Protect(info.ID, keptTag)
	}
	lost := make(chan struct{}, 1)
	notifiee := &network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
		if c.RemotePeer() == info.ID {
			select {
			case lost <- struct{}{}:
			default:
			}
		}
	}}
	l.host.Network().Notify(notifiee)
	defer l.host.Network().StopNotify(notifiee)
	retry := &backoff.ExponentialBackOff{
		InitialInterval: firstRetry, MaxInterval: lastRetry,
		RandomizationFactor: backoff.DefaultRandomizationFactor, Multiplier: backoff.DefaultMultiplier,
	}
	retry.Reset()
	for {
		if err := l.dial(ctx, info); err != nil {
			l.log.Debug("cannot connect", zap.Stringer("peer", info.ID), zap.Error(err))
		} else {
			l.bootstrapped(ctx)
			if !forGood {
				return nil
			}
			since := time.Now()
			if err := l.awaitLoss(ctx, info.ID, lost); err != nil {
				return err
			}
			// A peer that refuses us right away is one that cannot be reached.
			if time.Since(since) > steady {
				retry.Reset()
			}
		}
		select {
		case <-time.After(retry.NextBackOff()):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *live) dial(ctx context.Context, info peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return l.host.Connect(ctx, info)
}

// bootstrapped fills the routing table through a new connection.
func (l *live) bootstrapped(ctx context.Context) {
	if l.dht == nil || l.dht.Size() > 0 {
		return
	}
	if err := l.dht.Bootstrap(ctx); err != nil {
		l.log.Debug("bootstrap", zap.Error(err))
	}
}

// awaitLoss returns once the last connection with the peer is lost.
func (l *live) awaitLoss(ctx context.Context, p peer.ID, lost <-chan struct{}) error {
	for l.host.Network().Connectedness(p) == network.Connected {
		select {
		case <-lost:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
