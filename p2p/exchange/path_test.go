package exchange_test

import (
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
)

// punchTimeout is how long a direct connection is waited for where none will come.
const punchTimeout = 300 * time.Millisecond

// relayedPair is a pair whose only connection leads through a relay.
type relayedPair struct {
	*pair
	relay, holder host.Host
	meter         narhost.RelayMeter
	// addrs are those of the holder, and through is that by the relay.
	addrs   []ma.Multiaddr
	through ma.Multiaddr
}

// newRelayedPair has each side let certain relays carry NARs; nil: none.
func newRelayedPair(t *testing.T, shelf exchange.Shelf, data *narhost.DataRelay, clients, servers exchange.Relays) *relayedPair {
	t.Helper()
	p := &relayedPair{}
	newHost := func(cfg narhost.Config) host.Host {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Identity, cfg.Listen = key, []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}
		h, err := narhost.New(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		return h
	}
	p.relay = newHost(narhost.Config{Infrastructure: true, DataRelay: data, RelayMeter: &p.meter})
	to, from := newHost(narhost.Config{}), newHost(narhost.Config{})
	exchangetest.Connect(t, to, p.relay)
	// The service starts a moment after the host.
	for ctx, err := t.Context(), error(nil); ; {
		if _, err = circuit.Reserve(ctx, to, exchangetest.Info(p.relay)); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no reservation: %v", err)
		}
	}
	log := zaptest.NewLogger(t)
	server := exchange.NewServer(to, shelf, exchange.ServerConfig{Relays: servers}, log)
	stop := exchangetest.Run(t, to, server, exchange.Protocols("")[2])
	client := exchange.NewClient(from, exchange.ClientConfig{Relays: clients, PunchTimeout: punchTimeout}, log)
	p.pair = &pair{server: server, stop: stop, client: client, from: from, to: to.ID()}
	p.holder, p.addrs = to, to.Addrs()
	p.through = p.relay.Addrs()[0].Encapsulate(ma.StringCast("/p2p/" + p.relay.ID().String() + "/p2p-circuit"))
	if err := client.Connect(t.Context(), peer.AddrInfo{ID: p.to, Addrs: []ma.Multiaddr{p.through}}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNoNARThroughARelay(t *testing.T) {
	var shelf exchangetest.Shelf
	hash := shelf.Add(exchangetest.Bytes(1, 1000))
	p := newRelayedPair(t, &shelf, nil, nil, nil)
	if held, err := p.client.Have(t.Context(), p.to, []nix.NARHash{hash}); err != nil || !held[0].Held {
		t.Errorf("have = %v, %v, want held", held, err)
	}
	if p.client.Pathless(p.to) {
		t.Error("given up before it was tried")
	}
	if _, err := p.client.OpenNAR(t.Context(), p.to, hash, false); !errors.Is(err, exchange.ErrNoPath) {
		t.Errorf("open: %v, want ErrNoPath", err)
	}
	// The next one is not kept waiting.
	if !p.client.Pathless(p.to) {
		t.Error("not remembered")
	}
	// In another network holes may be punched that could not be before.
	p.client.Moved()
	if p.client.Pathless(p.to) {
		t.Error("remembered in another network")
	}
	if _, err := p.client.OpenNAR(t.Context(), p.to, hash, false); !errors.Is(err, exchange.ErrNoPath) {
		t.Errorf("open again: %v, want ErrNoPath", err)
	}
	// A direct connection is taken whatever was before.
	direct := network.WithForceDirectDial(t.Context(), "test")
	if err := p.from.Connect(direct, peer.AddrInfo{ID: p.to, Addrs: p.addrs}); err != nil {
		t.Fatal(err)
	}
	if p.client.Pathless(p.to) {
		t.Error("pathless though there is a direct connection")
	}
	if s := p.open(t, hash, false); s.Path() != exchange.PathDirect {
		t.Errorf("path %s", s.Path())
	}
}

// Who loses the connection that a hole was punched for has another one punched. The
// holder does so when a relayed connection is made, and at no other time: one that is
// there already is of no use, for one reason or the other.
func TestLostConnectionIsPunchedAnew(t *testing.T) {
	t.Run("made before holes could be punched", func(t *testing.T) {
		testLostConnection(t, func(p *relayedPair) { p.client.Punches() })
	})
	t.Run("punched in vain when nobody waited", func(t *testing.T) {
		testLostConnection(t, func(p *relayedPair) { p.client.Unpunched(p.to) })
	})
}

func testLostConnection(t *testing.T, useless func(*relayedPair)) {
	t.Helper()
	var shelf exchangetest.Shelf
	hash := shelf.Add(exchangetest.Bytes(1, 1000))
	p := newRelayedPair(t, &shelf, nil, nil, nil)
	p.client = exchange.NewClient(p.from, exchange.ClientConfig{PunchTimeout: time.Minute}, zaptest.NewLogger(t))
	// It cannot simply be dialled.
	p.holder.Network().(*swarm.Swarm).ListenClose(p.addrs...)
	p.from.Peerstore().AddAddr(p.to, p.through, peerstore.PermanentAddrTTL)
	for _, h := range []host.Host{p.from, p.holder} {
		h.SetStreamHandler(holepunch.Protocol, func(st network.Stream) { _ = st.Reset() })
	}
	// What goes on over the relayed connection keeps it.
	p.from.SetStreamHandler("/busy", func(st network.Stream) { <-t.Context().Done(); _ = st.Reset() })
	relayed := network.WithAllowLimitedConn(t.Context(), "busy")
	direct := network.WithForceDirectDial(t.Context(), "punched")
	p.holder.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, conn network.Conn) {
		if conn.Stat().Direction != network.DirInbound || !conn.Stat().Limited {
			return
		}
		go func() {
			_, err := p.holder.NewStream(relayed, p.from.ID(), "/busy")
			if err = errors.Join(err, p.holder.Connect(direct, exchangetest.Info(p.from))); err != nil && !conn.IsClosed() {
				t.Errorf("punch: %v", err)
			}
		}()
	}})
	// The first is lost while it is waited for or just after that, the others once
	// they were used.
	var first sync.Once
	p.from.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, conn network.Conn) {
		if !conn.Stat().Limited && conn.RemotePeer() == p.to {
			first.Do(func() { go conn.Close() })
		}
	}})
	useless(p)
	for opened := range 3 {
		s, err := p.client.OpenNAR(t.Context(), p.to, hash, false)
		if err == nil {
			_, _, err = s.Opened()
			_ = s.Close()
		}
		if errors.Is(err, exchange.ErrConnClosed) {
			s, err = p.client.OpenNAR(t.Context(), p.to, hash, false)
		}
		if err != nil {
			t.Fatalf("opened %d times, then: %v", opened, err)
		}
		_ = s.Close()
		for _, conn := range directConns(p.from, p.to) {
			_ = conn.Close()
		}
		for len(directConns(p.holder, p.from.ID())) > 0 { // Else it would not punch.
			time.Sleep(time.Millisecond)
		}
	}
}

// directConns returns the connections with a peer that lead through no relay.
func directConns(h host.Host, with peer.ID) []network.Conn {
	return slices.DeleteFunc(h.Network().ConnsToPeer(with), func(conn network.Conn) bool { return conn.Stat().Limited })
}

// Whatever the client thinks, the server has a say.
func TestServerRefusesNARsThroughARelay(t *testing.T) {
	var shelf exchangetest.Shelf
	hash := shelf.Add(exchangetest.Bytes(1, 1000))
	anyRelay := func(peer.ID, int64) bool { return true }
	p := newRelayedPair(t, &shelf, nil, anyRelay, nil)
	s, err := p.client.OpenNAR(t.Context(), p.to, hash, false)
	if err == nil {
		_, _, err = s.Opened()
		_ = s.Close()
	}
	if err == nil {
		t.Error("served through a relay")
	}
	if got := p.server.Stats().Refused; got != 1 {
		t.Errorf("%d refused, want 1", got)
	}
}

func TestNARsThroughARelayForData(t *testing.T) {
	const size, volume = 1 << 20, 64 << 20
	nar := exchangetest.Bytes(1, size)
	var shelf exchangetest.Shelf
	hash := shelf.Add(nar)
	var p *relayedPair
	own := func(relay peer.ID, lets int64) bool { return relay == p.relay.ID() && lets == volume }
	p = newRelayedPair(t, &shelf, &narhost.DataRelay{Volume: volume, Rate: 4 << 20}, own, own)
	begin := time.Now()
	s := p.open(t, hash, false)
	if s.Path() != exchange.PathRelay {
		t.Errorf("path %s", s.Path())
	}
	if got := fetch(t, s, hash, size); string(got) != string(nar) {
		t.Error("other bytes have come")
	}
	if took := time.Since(begin); took < size*time.Second/(4<<20)*9/10 {
		t.Errorf("%d bytes in %v, faster than the relay's rate", size, took)
	}
	if got := p.meter.Stats(); got.Bytes < size || got.Connections != 1 || got.Reservations != 1 {
		t.Errorf("relay's counters are %+v", got)
	}
}
