package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multistream"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
)

// A machine that is switched off or unplugged says nothing, and TCP goes on for
// minutes. On a local network, where a round trip takes a millisecond, silence
// tells: a neighbour that owes an answer and has sent nothing for silence must
// answer a ping within pingTimeout, or is taken for gone. One that has only
// announced itself anew has greetTimeout.
const (
	silence      = 400 * time.Millisecond
	pingTimeout  = 400 * time.Millisecond
	greetTimeout = 2 * time.Second
)

// Beyond it a peer has farTimeout to answer: the line may be long, and full. What
// it may be that has gone is only a router's mapping, or the address of either
// side: then the next connection is a good one.
const farTimeout = 4 * time.Second

// maxFar bounds the peers beyond the local network that are pinged at once.
const maxFar = 16

// watchPeers ends the connections with peers that have gone while something is
// awaited of them, until ctx ends.
func (l *live) watchPeers(ctx context.Context) error {
	var far errgroup.Group
	far.SetLimit(maxFar)
	defer func() { _ = far.Wait() }() // They have no errors.
	var pinged sync.Map
	return l.client.Watch(ctx, silence, func(p peer.ID) {
		if !l.alive(ctx, p, pingTimeout) {
			l.ledger.Failed(p)
			return
		}
		if _, already := pinged.LoadOrStore(p, nil); already {
			return
		}
		begun := far.TryGo(func() error {
			defer pinged.Delete(p)
			var pings sync.WaitGroup
			for _, c := range l.host.Network().ConnsToPeer(p) {
				if !narhost.IsLAN(c.RemoteMultiaddr()) {
					pings.Go(func() { l.endIfDead(ctx, c, farTimeout) })
				}
			}
			pings.Wait()
			if ctx.Err() == nil && l.host.Network().Connectedness(p) == network.NotConnected {
				l.ledger.Failed(p)
			}
			return nil
		})
		if !begun {
			pinged.Delete(p)
		}
	})
}

// returnTimeout is how long the connection of a peer has to prove itself that comes
// back through a relay.
const returnTimeout = 2 * time.Second

// watchReturns looks at the connections of peers that come through a relay although
// they are connected directly: their side of that is gone. As long as it is there
// on this side no hole is punched for them. If it is dead the relayed connection is
// ended with it, so that they come again and one is.
func (l *live) watchReturns(ctx context.Context) error {
	var checks errgroup.Group
	checks.SetLimit(maxFar)
	notifiee := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if !narhost.IsRelayed(c.RemoteMultiaddr()) || c.Stat().Direction != network.DirInbound {
			return
		}
		if _, direct := l.client.DirectAddr(c.RemotePeer()); !direct {
			return
		}
		checks.TryGo(func() error {
			l.checkReturn(ctx, c)
			return nil
		})
	}}
	l.host.Network().Notify(notifiee)
	<-ctx.Done()
	l.host.Network().StopNotify(notifiee)
	_ = checks.Wait() // They have no errors.
	return ctx.Err()
}

func (l *live) checkReturn(ctx context.Context, relayed network.Conn) {
	p := relayed.RemotePeer()
	var pings sync.WaitGroup
	for _, c := range l.host.Network().ConnsToPeer(p) {
		if !narhost.IsRelayed(c.RemoteMultiaddr()) {
			pings.Go(func() { l.endIfDead(ctx, c, returnTimeout) })
		}
	}
	pings.Wait()
	if _, direct := l.client.DirectAddr(p); !direct && ctx.Err() == nil {
		_ = relayed.Close() // It may be gone.
	}
}

// endIfDead ends a connection whose other side does not answer a ping.
func (l *live) endIfDead(ctx context.Context, c network.Conn, patience time.Duration) {
	if answers(ctx, c, patience) || ctx.Err() != nil {
		return
	}
	l.log.Debug("connection is dead", zap.Stringer("peer", c.RemotePeer()), zap.Stringer("address", c.RemoteMultiaddr()))
	_ = c.Close() // Nobody is there to be told.
}

// alive ends those connections with a peer on the local network that do not
// answer a ping in time, and reports whether others are left. Connections of
// other kinds are taken at their word.
func (l *live) alive(ctx context.Context, p peer.ID, patience time.Duration) bool {
	for _, c := range l.host.Network().ConnsToPeer(p) {
		addr := c.RemoteMultiaddr()
		if !narhost.IsLAN(addr) || narhost.IsLoopback(addr) || answers(ctx, c, patience) || ctx.Err() != nil {
			continue
		}
		l.log.Debug("neighbour has gone", zap.Stringer("peer", p), zap.Stringer("address", addr))
		_ = c.Close() // Nobody is there to be told.
	}
	return l.host.Network().Connectedness(p) == network.Connected
}

// relayInterval is how often a relay that leads to this node is pinged: others cannot
// reach the node while it takes a relay for alive that has gone, or that this
// node's router no longer lets answer. QUIC alone takes half a minute to notice, and
// TCP longer.
const relayInterval = 10 * time.Second

// watchConnections ends the connections with relays that do not answer, and with
// anybody when the network has changed, until ctx ends. Another relay is then
// looked for, or the same one connected with anew.
func (l *live) watchConnections(ctx context.Context) error {
	tick := time.NewTicker(relayInterval)
	defer tick.Stop()
	for {
		online, moved := l.online.wait(), l.moved.wait()
		var conns []network.Conn
		select {
		case <-tick.C:
			for _, relay := range l.outlook.relaying() {
				conns = append(conns, l.host.Network().ConnsToPeer(relay)...)
			}
		case <-online:
			conns = l.host.Network().Conns()
		case <-moved:
			conns = l.host.Network().Conns()
		case <-ctx.Done():
			return ctx.Err()
		}
		var pings sync.WaitGroup
		for _, c := range conns {
			pings.Go(func() { l.endIfDead(ctx, c, farTimeout) })
		}
		pings.Wait()
	}
}

// answers reports whether the other side of a connection answers a ping. The
// library's own ping chooses the connection itself.
func answers(ctx context.Context, c network.Conn, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	st, err := c.NewStream(ctx)
	if err != nil {
		return false
	}
	defer func() { _ = st.Reset() }()
	defer context.AfterFunc(ctx, func() { _ = st.Reset() })()
	if err := multistream.SelectProtoOrFail(ping.ID, st); err != nil {
		return false
	}
	sent, got := make([]byte, ping.PingSize), make([]byte, ping.PingSize)
	_, _ = rand.Read(sent) // It never fails.
	if _, err := st.Write(sent); err != nil {
		return false
	}
	_, err = io.ReadFull(st, got)
	return err == nil && bytes.Equal(sent, got)
}

// leaveOldAddresses closes the connections from addresses that this machine no
// longer has, and has the others looked at. Nothing comes through the former any
// more, and the other side cannot be told.
func (l *live) leaveOldAddresses() {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return
	}
	var own []ma.Multiaddr
	for _, a := range addrs {
		if addr, err := manet.FromNetAddr(a); err == nil {
			own = append(own, addr)
		}
	}
	for _, c := range l.host.Network().Conns() {
		ip, err := manet.ToIP(c.LocalMultiaddr())
		if err != nil || ip.IsUnspecified() {
			continue // QUIC does not tell.
		}
		local, err := manet.FromIP(ip)
		if err == nil && !ma.Contains(own, local) {
			_ = c.Close()
		}
	}
	l.moved.notify()
}
