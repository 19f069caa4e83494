package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"

	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
)

// The peers that are of use are remembered firstNote after the start, then every
// noteInterval, and at the end, for which there is noteTimeout.
const (
	firstNote    = time.Minute
	noteInterval = 15 * time.Minute
	noteTimeout  = 2 * time.Second
)

// remember takes note of peers for the next start, until ctx ends.
func (l *live) remember(ctx context.Context) error {
	timer := time.NewTimer(firstNote)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(noteInterval)
		case <-ctx.Done():
		}
		note, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
		if err := l.known.Met(note, l.useful()); err != nil {
			l.log.Warn("peers not remembered for the next start", zap.Error(err))
		}
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// useful returns the connected peers through which the network could be joined:
// first those that speak the stream protocols, then other nodes of the DHT.
func (l *live) useful() []peer.AddrInfo {
	var speakers, others []peer.AddrInfo
	for _, p := range l.host.Network().Peers() {
		speaks := l.speaks(p)
		if !speaks && !l.dht.Knows(p) {
			continue
		}
		info := peer.AddrInfo{ID: p, Addrs: l.dialable(p)}
		if speaks {
			speakers = append(speakers, info)
		} else {
			others = append(others, info)
		}
	}
	return append(speakers, others...)
}

// dialable returns the addresses at which a connected peer can be dialled, first
// those at which it was.
func (l *live) dialable(p peer.ID) []ma.Multiaddr {
	var addrs []ma.Multiaddr
	for _, c := range l.host.Network().ConnsToPeer(p) {
		// Of one that has come to us the port is not where it listens.
		if c.Stat().Direction == network.DirOutbound {
			addrs = append(addrs, c.RemoteMultiaddr())
		}
	}
	for _, addr := range l.host.Peerstore().Addrs(p) {
		if !ma.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return narhost.Direct(narhost.Announced(l.cfg.Listen)(addrs))
}
