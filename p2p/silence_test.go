package p2p_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// observers are nodes of the public IPFS DHT that take note of every message of
// it that reaches them, and of every stream of any other protocol.
type observers struct {
	hosts []host.Host
	dhts  []*dht.IpfsDHT

	mu sync.Mutex
	// heard tells of each peer what came from it.
	heard map[peer.ID][]string
}

func newObservers(t *testing.T, n int) *observers {
	t.Helper()
	o := &observers{heard: make(map[peer.ID][]string)}
	for range n {
		h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		d, err := dht.New(h, dht.Mode(dht.ModeServer), dht.ProtocolPrefix(dht.DefaultPrefix), dht.AddressFilter(nil),
			dht.OnRequestHook(func(_ context.Context, s network.Stream, m *pb.Message) {
				o.hear(s.Conn().RemotePeer(), "DHT: "+m.GetType().String())
			}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		// What nobody else handles, under any name.
		all := func(protocol.ID) bool { return true }
		h.SetStreamHandlerMatch("/everything", all, func(s network.Stream) {
			o.hear(s.Conn().RemotePeer(), string(s.Protocol()))
			s.Reset()
		})
		o.hosts, o.dhts = append(o.hosts, h), append(o.dhts, d)
	}
	for _, h := range o.hosts[1:] {
		if err := h.Connect(t.Context(), peer.AddrInfo{ID: o.hosts[0].ID(), Addrs: o.hosts[0].Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func (o *observers) hear(from peer.ID, what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heard[from] = append(o.heard[from], what)
}

func (o *observers) from(p peer.ID) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.heard[p]
}

// The nodes of a private network and of the public one are connected with each
// other, and still not a word is said about paths.
func TestPrivateNodesAreSilentTowardsThePublicNetwork(t *testing.T) {
	public := newObservers(t, 3)
	held := newShelf(t, 1<<20)
	want := held.one()
	key := routing.ContentKey(want.NARHash)
	holder := start(t, p2p.Config{Profile: p2p.Private, Network: "team"}, held)
	member := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Bootstrap: infos(holder)}, newShelf(t))

	var approach sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer approach.Wait()
	defer cancel()
	for _, h := range public.hosts {
		for _, n := range []*node{holder, member} {
			approach.Go(func() { pester(ctx, t, h, n.info()) })
		}
	}
	await(t, "the networks to touch", func() bool { return holder.Status().Foreign > 0 && member.Status().Foreign > 0 })

	// Everything that a node does meanwhile.
	await(t, "the holder to be found", func() bool { return member.finds(t, key, holder) })
	if member.asks(t, want.StorePath.HashPart(), true) == nil {
		t.Error("no narinfo from the own network")
	}
	if _, err := member.fetches(t, want, true); err != nil {
		t.Errorf("fetch in the own network: %v", err)
	}
	for n := range byte(20) {
		member.Expect(nix.NARHash{n}, true)
		for range member.FindProviders(ctx, routing.ContentKey(nix.NARHash{n})) {
			t.Error("found a provider of what nobody has")
		}
	}
	if err := holder.Announce(ctx, held.keys()...); err != nil {
		t.Errorf("announce: %v", err)
	}

	for _, n := range []*node{holder, member} {
		if heard := public.from(n.id); len(heard) > 0 {
			t.Errorf("the public network has heard: %v", heard)
		}
	}
	found := public.dhts[0].FindProvidersAsync(ctx, key, 20)
	for info := range found {
		t.Errorf("the public network knows %v as a provider", info)
	}
	for _, d := range public.dhts {
		for _, n := range []*node{holder, member} {
			if d.RoutingTable().Find(n.id) != "" {
				t.Error("a private node is in the routing table of the public network")
			}
		}
	}
	// The observers do hear: each other.
	if len(public.from(public.hosts[0].ID()))+len(public.from(public.hosts[1].ID())) == 0 {
		t.Error("the observers have heard nothing at all: the watch does not work")
	}
}

// pester connects with a node again and again until ctx ends, and tries all
// protocols of the public network on it.
func pester(ctx context.Context, t *testing.T, h host.Host, to peer.AddrInfo) {
	t.Helper()
	protocols := append(exchange.Protocols(routing.Prefix(p2p.PublicNetwork)),
		"/ipfs/kad/1.0.0", "/ipfs/lan/kad/1.0.0", "/libp2p/autonat/1.0.0", "/libp2p/autonat/2/dial-request", "/libp2p/circuit/relay/0.2.0/hop")
	for ctx.Err() == nil {
		if err := h.Connect(ctx, to); err == nil {
			for _, id := range protocols {
				// Without an error it has been negotiated, or promised by identify.
				if s, err := h.NewStream(ctx, to.ID, id); err == nil {
					t.Errorf("a private node speaks %s with the public network", id)
					s.Reset()
				}
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
