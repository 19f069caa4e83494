package exchange

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
	"go.uber.org/zap"
)

// A peer behind a NAT is first connected with through a relay. It then dials back,
// or both sides punch a hole for each other (DCUtR), and a direct connection takes
// the relay's place. NARs wait for that: a relay lets a little through and is
// somebody else's. Only where no direct connection comes, and the relay is one's own
// and meant for data, do they go over it.

// ErrNoPath says that there is no connection with the peer over which NARs may go:
// both are behind NATs through which no hole could be punched.
var ErrNoPath = errors.New("exchange: no direct connection with the peer, only through a relay")

const (
	// punchTimeout is how long a direct connection is waited for. Punching takes a
	// few round trips, and half that long where it fails and is tried again.
	punchTimeout = 10 * time.Second
	// maxPunches is how often it is waited for where what has come is lost.
	maxPunches = 3
	// prepareTimeout is how long a node may take after its start to know an address
	// of its own to punch holes with, looked at every prepareInterval.
	prepareTimeout  = 4 * time.Second
	prepareInterval = 50 * time.Millisecond
	// After a failure it is not waited for again for firstPause, and then ever longer
	// up to lastPause: NATs do not change from one NAR to the next. Networks do, see
	// Client.Moved.
	firstPause = 30 * time.Second
	lastPause  = time.Hour
	// firstPauseAgain is for a peer with whom it has worked before.
	firstPauseAgain = 10 * time.Second
	// maxUnpunched bounds the peers of whom that is remembered.
	maxUnpunched = 1_024
)

// Relays tells of relays that may carry NARs: the peer ID is that of the relay, and
// volume how many bytes it lets through in each direction, 0 for any number.
type Relays func(relay peer.ID, volume int64) bool

// Path is the way that bytes take.
type Path string

const (
	// PathDirect leads to the peer itself.
	PathDirect Path = "direct"
	// PathRelay leads through a relay.
	PathRelay Path = "relay"
)

// pathOf returns which way a connection takes.
func pathOf(c network.Conn) Path {
	if isRelayed(c.RemoteMultiaddr()) {
		return PathRelay
	}
	return PathDirect
}

// carries reports whether NARs may go over a connection.
func (r Relays) carries(c network.Conn) bool {
	if !isRelayed(c.RemoteMultiaddr()) {
		return !c.Stat().Limited
	}
	if r == nil {
		return false
	}
	relay, ok := relayOf(c.RemoteMultiaddr())
	if !ok {
		return false
	}
	volume, _ := c.Stat().Extra[circuit.StatLimitData].(uint64)
	return r(relay, int64(min(volume, 1<<62)))
}

// relayOf returns the relay that an address leads through.
func relayOf(addr ma.Multiaddr) (peer.ID, bool) {
	var relay peer.ID
	for _, c := range addr {
		switch c.Protocol().Code {
		case ma.P_P2P:
			relay = peer.ID(c.RawValue())
		case ma.P_CIRCUIT:
			return relay, relay != ""
		}
	}
	return "", false
}

// carrier returns the best connection with a peer over which NARs may go, or nil.
func (c *Client) carrier(p peer.ID) (best network.Conn) {
	for _, conn := range c.host.Network().ConnsToPeer(p) {
		if !conn.IsClosed() && c.cfg.Relays.carries(conn) && (best == nil || pathOf(conn) == PathDirect) {
			best = conn
		}
	}
	return best
}

// Pathless reports whether a peer is connected, but NARs from it have no way and
// will have none for a while.
func (c *Client) Pathless(p peer.ID) bool {
	_, rests := c.unpunched.rests(p)
	return rests && c.carrier(p) == nil
}

// Punching reports whether a direct connection with a peer is waited for.
func (c *Client) Punching(p peer.ID) bool { return c.unpunched.waitsFor(p) }

// newDataStream opens a stream for a NAR, on a direct connection if one can be had.
func (c *Client) newDataStream(ctx context.Context, p peer.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	limited := network.WithAllowLimitedConn(ctx, "nar-p2p")
	if err := c.host.Connect(limited, peer.AddrInfo{ID: p}); err != nil {
		c.failed(ctx, p)
		return nil, err
	}
	if _, direct := c.DirectAddr(p); !direct {
		if err := c.punched(ctx, p); err != nil {
			return c.newRelayedStream(limited, p, err)
		}
	}
	c.unpunched.succeeded(p)
	c.leaveRelays(p)
	return c.newDirectStream(ctx, p)
}

// newDirectStream opens a stream for a NAR on a direct connection. If that is lost
// meanwhile the error is ErrConnClosed: libp2p would wait for another one.
func (c *Client) newDirectStream(ctx context.Context, p peer.ID) (network.Stream, error) {
	ctx, cancel := context.WithCancelCause(network.WithNoDial(ctx, "connected before"))
	defer cancel(nil)
	lost := func() bool { _, direct := c.DirectAddr(p); return !direct }
	notifiee := &network.NotifyBundle{DisconnectedF: func(_ network.Network, conn network.Conn) {
		if conn.RemotePeer() == p && lost() {
			cancel(ErrConnClosed)
		}
	}}
	c.host.Network().Notify(notifiee)
	defer c.host.Network().StopNotify(notifiee)
	if lost() {
		return nil, ErrConnClosed
	}
	st, err := c.host.NewStream(ctx, p, c.ids.nar)
	switch {
	case err != nil && errors.Is(context.Cause(ctx), ErrConnClosed):
		return nil, ErrConnClosed
	case err != nil && ctx.Err() == nil && lost():
		return nil, fmt.Errorf("%w: %w", ErrConnClosed, err)
	}
	return st, err
}

// leaveRelays closes the connections with a peer that lead through relays and that
// nothing is done with: there is a direct one, and relays have others to serve.
func (c *Client) leaveRelays(p peer.ID) {
	for _, conn := range c.host.Network().ConnsToPeer(p) {
		if isRelayed(conn.RemoteMultiaddr()) && len(conn.GetStreams()) == 0 {
			_ = conn.Close() // It may be lost already.
		}
	}
}

// punched waits for a direct connection, unless that was in vain lately.
func (c *Client) punched(ctx context.Context, p peer.ID) error {
	since, rests := c.unpunched.rests(p)
	if rests {
		return ErrNoPath
	}
	c.log.Debug("waiting for a direct connection", zap.Stringer("peer", p))
	waiting, cancel := context.WithTimeout(ctx, c.cfg.PunchTimeout)
	defer cancel()
	defer c.unpunched.await(p, cancel)()
	if prepared := c.prepared(waiting, p); prepared.After(since) {
		since = prepared
	}
	w := c.watch(p)
	defer w.stop()
	if err := c.reconnect(ctx, p, since); err != nil {
		return err
	}
	for range maxPunches {
		lost, ok := w.awaitDirect(waiting)
		if ok {
			return nil
		}
		// A peer that first has to find out that an old connection is dead ends this one,
		// to be come to again. Where both sides have punched over TCP and over QUIC, each
		// may have closed what the other kept.
		if waiting.Err() != nil || c.reconnect(waiting, p, lost) != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.unpunched.failed(p)
	c.log.Debug("no direct connection", zap.Stringer("peer", p))
	return ErrNoPath
}

// prepared waits until both sides can punch holes, for a while, and returns since
// when they can, as far as that is known. The other side tries once, when a relayed
// connection is made: one that is older is of no use.
func (c *Client) prepared(ctx context.Context, p peer.ID) (since time.Time) {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	tick := time.NewTicker(prepareInterval)
	defer tick.Stop()
	for waited := false; ; waited = true {
		_, direct := c.DirectAddr(p)
		theirs, err := c.host.Peerstore().SupportsProtocols(p, holepunch.Protocol)
		if own := slices.Contains(c.host.Mux().Protocols(), holepunch.Protocol); direct || own && err == nil && len(theirs) > 0 {
			if waited {
				return time.Now()
			}
			return c.punches.Time()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return c.punches.Time()
		}
	}
}

// Punches says that this node can punch holes from now on.
func (c *Client) Punches() { c.punches.Set(time.Now()) }

// watch hears of connections with a peer that are made or end.
type watch struct {
	client  *Client
	peer    peer.ID
	changed chan struct{}
	lost    chan time.Time // when a direct one ended
	network.NotifyBundle
}

// watch is to be stopped.
func (c *Client) watch(p peer.ID) *watch {
	w := &watch{client: c, peer: p, changed: make(chan struct{}, 1), lost: make(chan time.Time, 1)}
	began := time.Now()
	w.ConnectedF = func(_ network.Network, conn network.Conn) {
		if conn.RemotePeer() == p {
			offer(w.changed, struct{}{})
		}
	}
	w.DisconnectedF = func(_ network.Network, conn network.Conn) {
		switch {
		case conn.RemotePeer() != p:
		case pathOf(conn) == PathDirect && conn.Stat().Opened.After(began):
			offer(w.lost, time.Now())
		default:
			offer(w.changed, struct{}{})
		}
	}
	c.host.Network().Notify(w)
	return w
}

func (w *watch) stop() { w.client.host.Network().StopNotify(w) }

// awaitDirect waits until there is a direct connection with the peer, and reports
// false where ctx ends before, or every connection, or a direct one that came: lost
// is when.
func (w *watch) awaitDirect(ctx context.Context) (lost time.Time, ok bool) {
	for {
		if _, ok := w.client.DirectAddr(w.peer); ok {
			return lost, true
		}
		if !lost.IsZero() || ctx.Err() != nil || w.client.host.Network().Connectedness(w.peer) == network.NotConnected {
			return lost, false
		}
		select {
		case <-w.changed:
		case lost = <-w.lost:
		case <-ctx.Done():
		}
	}
}

// offer sends without waiting, to a channel with room for one.
func offer[T any](ch chan<- T, v T) {
	select {
	case ch <- v:
	default:
	}
}

// reconnect replaces relayed connections that are older than that and bring no NAR,
// unless there is a direct one.
func (c *Client) reconnect(ctx context.Context, p peer.ID, before time.Time) error {
	if _, direct := c.DirectAddr(p); direct {
		return nil
	}
	for _, conn := range c.host.Network().ConnsToPeer(p) {
		if isRelayed(conn.RemoteMultiaddr()) && conn.Stat().Opened.Before(before) && !c.bringsNAR(conn) {
			_ = conn.Close() // It may be lost already.
		}
	}
	return c.host.Connect(network.WithAllowLimitedConn(ctx, "nar-p2p"), peer.AddrInfo{ID: p})
}

// bringsNAR reports whether a NAR is being fetched over a connection.
func (c *Client) bringsNAR(conn network.Conn) bool {
	return slices.ContainsFunc(conn.GetStreams(), func(st network.Stream) bool { return st.Protocol() == c.ids.nar })
}

// newRelayedStream opens a stream for a NAR over a relay that may carry it, if
// there is one, and returns the reason why there is no better otherwise.
func (c *Client) newRelayedStream(ctx context.Context, p peer.ID, reason error) (network.Stream, error) {
	conn := c.carrier(p)
	if conn == nil || !errors.Is(reason, ErrNoPath) {
		return nil, reason
	}
	// The host would choose any connection.
	st, err := conn.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = st.SetDeadline(deadline) // Where it fails the stream is gone.
	if err = multistream.SelectProtoOrFail(c.ids.nar, st); err == nil {
		err = st.SetProtocol(c.ids.nar)
	}
	if err != nil {
		_ = st.Reset()
		return nil, fmt.Errorf("%w: %w", reason, err)
	}
	_ = st.SetDeadline(time.Time{})
	return st, nil
}

// Unpunched says that both sides have tried in vain to punch a hole: nobody need
// wait any longer, and the relayed connection will lead to no other try.
func (c *Client) Unpunched(p peer.ID) { c.unpunched.giveUp(p) }

// Moved says that this machine is in another network, where holes may be punched
// that could not be before.
func (c *Client) Moved() { c.unpunched.forget() }

// unpunched knows the peers to whom no hole has been punched.
type unpunched struct {
	mu sync.Mutex
	// peers are those with whom it was tried, awaited what ends the wait for one.
	peers   *lru.LRU[peer.ID, tried]
	awaited map[peer.ID][]*context.CancelFunc
}

// tried says how often that was tried in vain since it last worked, and when last,
// in vain or not. Ended is when both sides were last done with it, whoever waited.
type tried struct {
	failures  int
	at, ended time.Time
	worked    bool
}

// pause is how long it is not tried again. If it has worked before, it is not the
// NATs.
func (t tried) pause() time.Duration {
	first := firstPause
	if t.worked {
		first = firstPauseAgain
	}
	return min(first<<min(t.failures-1, 10), lastPause)
}

func newUnpunched() *unpunched {
	peers, err := lru.NewLRU[peer.ID, tried](maxUnpunched, nil)
	if err != nil {
		panic("exchange: " + err.Error()) // only for a size that is not positive
	}
	return &unpunched{peers: peers, awaited: make(map[peer.ID][]*context.CancelFunc)}
}

// await notes that somebody waits for a peer, until done; cancel ends that.
func (u *unpunched) await(p peer.ID, cancel context.CancelFunc) (done func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.awaited[p] = append(u.awaited[p], &cancel)
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.awaited[p] = slices.DeleteFunc(u.awaited[p], func(c *context.CancelFunc) bool { return c == &cancel })
		if len(u.awaited[p]) == 0 {
			delete(u.awaited, p)
		}
	}
}

func (u *unpunched) waitsFor(p peer.ID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.awaited[p]) > 0
}

// giveUp ends all waits for a peer, and notes when.
func (u *unpunched) giveUp(p peer.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, cancel := range u.awaited[p] {
		(*cancel)()
	}
	t, _ := u.peers.Get(p)
	t.ended = time.Now()
	u.peers.Add(p, t)
}

// rests reports whether it is too early to try again, and when it was last tried: a
// relayed connection of before has led to all that it will lead to.
func (u *unpunched) rests(p peer.ID) (since time.Time, rests bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t, _ := u.peers.Get(p)
	since = t.at
	if t.ended.After(since) {
		since = t.ended
	}
	return since, t.failures > 0 && time.Since(t.at) < t.pause()
}

func (u *unpunched) failed(p peer.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t, _ := u.peers.Get(p)
	// Several that waited at once have failed once.
	if t.failures == 0 || time.Since(t.at) >= firstPauseAgain {
		t.failures++
	}
	t.at = time.Now()
	u.peers.Add(p, t)
}

func (u *unpunched) succeeded(p peer.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.peers.Add(p, tried{at: time.Now(), worked: true})
}

func (u *unpunched) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.peers.Purge()
}
