package p2p

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2pswarm "github.com/libp2p/go-libp2p/p2p/net/swarm"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// A peer that cannot be reached is tried again after firstRetry, and then ever
// more rarely up to lastRetry. So is a network that cannot be joined.
const (
	firstRetry     = time.Second
	lastRetry      = time.Minute
	connectTimeout = 15 * time.Second
	// steady is how long a connection lasts that was worth having.
	steady = time.Minute
)

// To join, candidates are dialled maxDials at once, for seekTimeout each.
const (
	maxDials    = 16
	seekTimeout = 5 * time.Second
)

// headStart is how long peers remembered from earlier are tried alone, before
// the bootstrap peers of the public network are bothered.
const headStart = 3 * time.Second

// keptTag protects connections from being trimmed.
const keptTag = "nar-p2p-kept"

// connect brings the node into its network and keeps the connections that are
// to be kept, until ctx ends. In a private network that includes the bootstrap
// peers, which relay and are few. Those of the public network are left alone
// while the DHT knows others.
func (l *live) connect(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.watchInterfaces(ctx) })
	keep := func(infos []peer.AddrInfo) {
		for _, info := range infos {
			if info.ID != l.host.ID() {
				g.Go(func() error { return l.keep(ctx, info) })
			}
		}
	}
	keep(l.cfg.Peers)
	if l.cfg.private() {
		keep(l.cfg.Bootstrap)
	}
	if l.dht != nil {
		g.Go(func() error { return l.join(ctx) })
		g.Go(func() error { return l.remember(ctx) })
	}
	return g.Wait()
}

func newRetry() *backoff.ExponentialBackOff {
	retry := &backoff.ExponentialBackOff{
		InitialInterval: firstRetry, MaxInterval: lastRetry,
		RandomizationFactor: backoff.DefaultRandomizationFactor, Multiplier: backoff.DefaultMultiplier,
	}
	retry.Reset()
	return retry
}

// keep stays connected with a peer.
func (l *live) keep(ctx context.Context, info peer.AddrInfo) error {
	l.host.ConnManager().Protect(info.ID, keptTag)
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
	retry := newRetry()
	for {
		online := l.online.wait()
		if l.dial(ctx, info, connectTimeout) {
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
		case <-online:
			retry.Reset()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// dial connects with a peer, whatever came of earlier attempts: whoever calls it
// has waited long enough.
func (l *live) dial(ctx context.Context, info peer.AddrInfo, timeout time.Duration) bool {
	if s, ok := l.host.Network().(*libp2pswarm.Swarm); ok {
		s.Backoff().Clear(info.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := l.host.Connect(ctx, info); err != nil {
		l.log.Debug("cannot connect", zap.Stringer("peer", info.ID), zap.Error(err))
		return false
	}
	l.bootstrapped(ctx)
	return true
}

// bootstrapped fills the routing table through a new connection.
func (l *live) bootstrapped(ctx context.Context) {
	if l.dht == nil || l.dht.Joined() {
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

// join sees to it that the DHT knows a peer of the network, at the start and
// whenever all were lost.
func (l *live) join(ctx context.Context) error {
	retry := newRetry()
	for first := true; ; {
		online := l.online.wait()
		pause := lastRetry
		if l.dht.Joined() {
			retry.Reset()
			first = true
		} else {
			l.seek(ctx, first)
			first = false
			pause = retry.NextBackOff()
		}
		select {
		case <-time.After(pause):
		case <-online:
			retry.Reset()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// seek dials the peers remembered from earlier and then, in the public network,
// the bootstrap peers; those of a private one are kept in any case. A first
// attempt leaves it at the former if one of them is there.
func (l *live) seek(ctx context.Context, first bool) {
	known, err := l.known.Peers(ctx)
	if err != nil {
		l.log.Debug("no known peers", zap.Error(err))
	}
	var answered atomic.Bool
	start, cancel := context.WithTimeout(ctx, headStart)
	var dials sync.WaitGroup
	defer dials.Wait()
	dials.Go(func() {
		defer cancel()
		l.dialAny(ctx, known, func() {
			answered.Store(true)
			cancel()
		})
	})
	<-start.Done()
	if !l.cfg.private() && (!first || !answered.Load()) {
		l.dialAny(ctx, l.cfg.bootstrap(), func() {})
	}
}

// dialAny dials candidates until the DHT knows a peer, and calls met for each
// that it has connected with.
func (l *live) dialAny(ctx context.Context, infos []peer.AddrInfo, met func()) {
	var g errgroup.Group
	g.SetLimit(maxDials)
	for _, info := range infos {
		if info.ID == l.host.ID() {
			continue
		}
		g.Go(func() error {
			if ctx.Err() == nil && !l.dht.Joined() && l.dial(ctx, info, seekTimeout) {
				met()
			}
			return nil
		})
	}
	_ = g.Wait() // No error is returned.
}
