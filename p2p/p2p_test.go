package p2p_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Of a package that libp2p imports: started at its initialisation.
		goleak.IgnoreAnyFunction("github.com/libp2p/go-flow-metrics.(*sweeper).run"),
		// The same, of one that boxo imports.
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

// shelf is a store in memory with everything shareable.
type shelf struct {
	nars  map[nix.NARHash][]byte
	infos map[nix.HashPart]*narinfo.Info
}

// newShelf holds NARs of these sizes in bytes.
func newShelf(tb testing.TB, sizes ...int) *shelf {
	tb.Helper()
	s := &shelf{nars: make(map[nix.NARHash][]byte), infos: make(map[nix.HashPart]*narinfo.Info)}
	for _, size := range sizes {
		data := make([]byte, size)
		if _, err := rand.Read(data); err != nil {
			tb.Fatal(err)
		}
		s.add(tb, data)
	}
	return s
}

func (s *shelf) add(tb testing.TB, data []byte) {
	tb.Helper()
	hash := nix.NARHash(sha256.Sum256(data))
	path, err := nix.NewStorePath(nix.HashPart(hash[:20]), "test")
	if err != nil {
		tb.Fatal(err)
	}
	s.nars[hash] = data
	s.infos[path.HashPart()] = (&narstore.PathInfo{Path: path, NARHash: hash, NARSize: int64(len(data))}).Narinfo()
}

func (s *shelf) Held(h nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	_, held = s.nars[h]
	return chunk.Root{}, false, held
}

func (s *shelf) Narinfo(_ context.Context, part nix.HashPart) (*narinfo.Info, error) {
	if info, ok := s.infos[part]; ok {
		return info, nil
	}
	return nil, narstore.ErrNotFound
}

func (s *shelf) Open(_ context.Context, h nix.NARHash) (narstore.NAR, error) {
	if data, ok := s.nars[h]; ok {
		return memory{bytes.NewReader(data)}, nil
	}
	return nil, narstore.ErrNotFound
}

func (s *shelf) Manifest(ctx context.Context, h nix.NARHash, emit func([]byte) error) (chunk.Root, error) {
	data, ok := s.nars[h]
	if !ok {
		return chunk.Root{}, narstore.ErrNotFound
	}
	m, err := chunk.Build(ctx, bytes.NewReader(data), h, int64(len(data)), emit)
	if err != nil {
		return chunk.Root{}, err
	}
	return m.Root(), nil
}

func (s *shelf) Follow(ctx context.Context, f func(share.Change) error) error {
	if err := f(share.Change{Added: s.keys(), Settled: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *shelf) keys() []share.Key {
	var keys []share.Key
	for part, info := range s.infos {
		keys = append(keys, share.Key{HashPart: part, NARHash: info.NARHash, NARSize: info.NARSize})
	}
	return keys
}

// one returns the record of the only path.
func (s *shelf) one() *narinfo.Info {
	for _, info := range s.infos {
		return info
	}
	return nil
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// node is a running node.
type node struct {
	*p2p.Node
	id   peer.ID
	stop func()
}

func newIdentity(tb testing.TB) (crypto.PrivKey, peer.ID) {
	tb.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return key, id
}

// newDatastore makes datastores for one node that live as long as the test.
func newDatastore() func(string) ds.Batching {
	store := dssync.MutexWrap(ds.NewMapDatastore())
	return func(name string) ds.Batching { return namespace.Wrap(store, ds.NewKey(name)) }
}

// start runs a node on loopback until the test ends or stop is called.
func start(tb testing.TB, cfg p2p.Config, s p2p.Shelf) *node {
	tb.Helper()
	if cfg.Identity == nil {
		cfg.Identity, _ = newIdentity(tb)
	}
	if cfg.Listen == nil {
		cfg.Listen = []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}
	}
	if cfg.Bootstrap == nil {
		cfg.Bootstrap = []peer.AddrInfo{}
	}
	if cfg.Datastore == nil {
		cfg.Datastore = newDatastore()
	}
	n, err := p2p.New(cfg, s, zaptest.NewLogger(tb, zaptest.Level(zap.WarnLevel)))
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stop := func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			tb.Errorf("Run: %v", err)
		}
		ended <- nil
	}
	tb.Cleanup(stop)
	select {
	case <-n.Ready():
	case err := <-ended:
		tb.Fatal(err)
	}
	return &node{Node: n, id: n.Status().PeerID, stop: stop}
}

func (n *node) info() peer.AddrInfo {
	return peer.AddrInfo{ID: n.id, Addrs: n.Status().Announced}
}

func infos(nodes ...*node) []peer.AddrInfo {
	out := []peer.AddrInfo{}
	for _, n := range nodes {
		out = append(out, n.info())
	}
	return out
}

// await waits until a condition holds.
func await(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// connected reports whether two nodes know of each other what they speak.
func (n *node) connected(other *node) bool {
	for _, p := range n.Peers() {
		if p.ID == other.id && p.Agent != "" {
			return true
		}
	}
	return false
}

// asks returns the first record that peers give, or nil.
func (n *node) asks(t *testing.T, part nix.HashPart, strangers bool) *narinfo.Info {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for info := range n.Narinfos(ctx, part, strangers) {
		return info
	}
	return nil
}

// fetches reads a whole NAR from peers.
func (n *node) fetches(t *testing.T, info *narinfo.Info, strangers bool) ([]byte, error) {
	t.Helper()
	transfer, err := n.Open(t.Context(), swarm.Want{Hash: info.NARHash, Size: info.NARSize, Strangers: strangers})
	if err != nil {
		return nil, err
	}
	defer transfer.Close()
	return io.ReadAll(transfer)
}

func (n *node) finds(t *testing.T, key cid.Cid, provider *node) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for info := range n.FindProviders(ctx, key) {
		if info.ID == provider.id {
			return true
		}
	}
	return false
}

// A limit on uploads shows in that NARs go out compressed, on loopback too,
// where they otherwise do not. It can be set before a node runs and meanwhile.
func TestUploadLimit(t *testing.T) {
	held := newShelf(t)
	held.add(t, bytes.Repeat([]byte("text, "), 50_000))
	want := held.one()
	provider := start(t, p2p.Config{Profile: p2p.Private, Network: "team", UploadLimit: 10 << 20}, held)
	for _, limited := range []bool{true, false, true} {
		before := provider.Status().Served.BytesServed
		consumer := start(t, p2p.Config{Profile: p2p.Consume, Network: "team", Peers: infos(provider)}, nil)
		await(t, "the provider to be connected", func() bool { return consumer.connected(provider) })
		got, err := consumer.fetches(t, want, false)
		if err != nil || !bytes.Equal(got, held.nars[want.NARHash]) {
			t.Fatalf("fetched %d bytes (%v), which are not the NAR's %d", len(got), err, want.NARSize)
		}
		consumer.stop()
		await(t, "the sessions to end", func() bool { return provider.Status().Served.ActiveSessions == 0 })
		if sent := provider.Status().Served.BytesServed - before; (sent < want.NARSize/2) != limited {
			t.Errorf("limited: %t: a NAR of %d bytes went out in %d", limited, want.NARSize, sent)
		}
		provider.LimitUploads(map[bool]int64{true: 0, false: 10 << 20}[limited])
	}
}

func TestThreeNodesThatKnowABootstrapPeer(t *testing.T) {
	held := newShelf(t, 3<<20)
	want := held.one()
	bootstrap := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Infrastructure: true}, newShelf(t))
	provider := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Bootstrap: infos(bootstrap)}, held)
	consumer := start(t, p2p.Config{
		Profile: p2p.Consume, Network: "team", Bootstrap: infos(bootstrap), Registerer: prometheus.NewRegistry(),
	}, nil)

	for _, key := range []cid.Cid{routing.ContentKey(want.NARHash), routing.MetadataKey(want.StorePath.HashPart())} {
		await(t, "the provider to be found", func() bool { return consumer.finds(t, key, provider) })
	}
	if diff := cmp.Diff(want.Bytes(), consumer.asks(t, want.StorePath.HashPart(), false).Bytes()); diff != "" {
		t.Errorf("narinfo: (-want +got)\n%s", diff)
	}
	consumer.Expect(want.NARHash, false)
	await(t, "a holder to be known", func() bool { return consumer.Known(want.NARHash) })
	got, err := consumer.fetches(t, want, false)
	if err != nil || !bytes.Equal(got, held.nars[want.NARHash]) {
		t.Errorf("fetched %d bytes (%v), which are not the NAR's %d", len(got), err, want.NARSize)
	}
	if err := provider.Announce(t.Context(), held.keys()...); err != nil {
		t.Errorf("announce: %v", err)
	}
	if err := consumer.Announce(t.Context()); !errors.Is(err, p2p.ErrNotAnnouncing) {
		t.Errorf("a consumer's Announce = %v, want ErrNotAnnouncing", err)
	}

	status := provider.Status()
	if status.DHT == nil || !status.DHT.Server || status.DHT.Peers == 0 || status.Served == nil || status.Served.BytesServed == 0 {
		t.Errorf("provider's status: %+v, DHT %+v, served %+v", status, status.DHT, status.Served)
	}
	if status.Announcing == nil || status.Announcing.Keys != 2 {
		t.Errorf("announcing %+v, want 2 keys", status.Announcing)
	}
	if c := consumer.Status(); c.DHT == nil || c.DHT.Server || c.Served != nil || c.Announcing != nil {
		t.Errorf("consumer's status: %+v", c)
	}
	await(t, "the bytes to be counted", func() bool { // Once a second.
		for _, p := range provider.Peers() {
			if p.ID == consumer.id {
				if p.Exchange || !p.LAN || p.Relayed {
					t.Errorf("the consumer as the provider sees it: %+v", p)
				}
				return p.Sent >= want.NARSize
			}
		}
		return false
	})
}

func TestNodesOfAnotherNetworkLearnNothing(t *testing.T) {
	held := newShelf(t, 1<<20)
	want := held.one()
	provider := start(t, p2p.Config{Profile: p2p.Private, Network: "red"}, held)
	for _, cfg := range []p2p.Config{
		{Profile: p2p.Private, Network: "blue"},
		{Profile: p2p.Public, Network: p2p.PublicNetwork},
	} {
		t.Run(cfg.Network, func(t *testing.T) {
			cfg.Bootstrap, cfg.Peers = infos(provider), infos(provider)
			other := start(t, cfg, newShelf(t))
			await(t, "a contact", func() bool { return other.Status().Foreign+provider.Status().Foreign > 0 })
			if other.asks(t, want.StorePath.HashPart(), true) != nil {
				t.Error("got a narinfo")
			}
			other.Expect(want.NARHash, true)
			if other.finds(t, routing.ContentKey(want.NARHash), provider) || other.Known(want.NARHash) {
				t.Error("found a provider")
			}
		})
	}
	if served := provider.Status().Served; served.Queries != 0 {
		t.Errorf("the provider has answered %d queries of another network", served.Queries)
	}
}

func TestPrivateNetworkAnswersItsMembersOnly(t *testing.T) {
	held := newShelf(t, 1<<20)
	want := held.one()
	memberKey, member := newIdentity(t)
	bootstrap := start(t, p2p.Config{Profile: p2p.Private, Network: "team"}, newShelf(t))
	provider := start(t, p2p.Config{
		Profile: p2p.Private, Network: "team", Allow: []peer.ID{member}, Bootstrap: infos(bootstrap),
	}, held)

	insider := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Peers: infos(provider), Identity: memberKey}, newShelf(t))
	await(t, "the member to get the narinfo", func() bool { return insider.asks(t, want.StorePath.HashPart(), false) != nil })

	// The bootstrap peer is connected, yet it is no member.
	await(t, "the bootstrap peer's connection", func() bool { return bootstrap.connected(provider) })
	if bootstrap.asks(t, want.StorePath.HashPart(), false) != nil {
		t.Error("a bootstrap peer that is no member got a narinfo")
	}
	outsider := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Bootstrap: infos(bootstrap), Peers: infos(provider)}, newShelf(t))
	await(t, "the outsider to find the provider", func() bool {
		return outsider.finds(t, routing.MetadataKey(want.StorePath.HashPart()), provider)
	})
	if outsider.asks(t, want.StorePath.HashPart(), false) != nil || provider.connected(outsider) {
		t.Error("an outsider got a narinfo, or a connection")
	}
	if _, err := outsider.fetches(t, want, false); err == nil {
		t.Error("an outsider got a NAR")
	}
}

func TestConsumersServeNobody(t *testing.T) {
	held := newShelf(t, 1<<20)
	want := held.one()
	consumer := start(t, p2p.Config{Profile: p2p.Consume, Network: "team"}, held)
	other := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Peers: infos(consumer)}, newShelf(t))
	await(t, "a connection", func() bool { return other.connected(consumer) })
	if other.asks(t, want.StorePath.HashPart(), true) != nil {
		t.Error("a consumer gave a narinfo")
	}
	if _, err := other.fetches(t, want, true); err == nil {
		t.Error("a consumer gave a NAR")
	}
}

// Asking is telling: on the public network only those in the allow-list learn
// of a path that strangers must not be asked about.
func TestStrangersAreAskedOnlyWhereThatIsAllowed(t *testing.T) {
	held := newShelf(t, 1<<20)
	want := held.one()
	part := want.StorePath.HashPart()
	for _, profile := range []p2p.Profile{p2p.Public, p2p.LAN} {
		t.Run(string(profile), func(t *testing.T) {
			neighbour := start(t, p2p.Config{Profile: profile, Network: p2p.PublicNetwork}, held)
			node := start(t, p2p.Config{Profile: profile, Network: p2p.PublicNetwork, Peers: infos(neighbour)}, newShelf(t))
			await(t, "a connection", func() bool { return node.connected(neighbour) })

			if node.asks(t, part, false) != nil {
				t.Error("a stranger was asked for a narinfo")
			}
			node.Expect(want.NARHash, false)
			if _, err := node.fetches(t, want, false); err == nil {
				t.Error("a stranger was asked for a NAR")
			}
			if served := neighbour.Status().Served; served.Queries != 0 || served.Sessions != 0 {
				t.Errorf("a stranger has heard %d queries and %d sessions", served.Queries, served.Sessions)
			}

			await(t, "a narinfo from a stranger", func() bool { return node.asks(t, part, true) != nil })
			if _, err := node.fetches(t, want, true); err != nil {
				t.Errorf("fetch from a stranger: %v", err)
			}
			friend := start(t, p2p.Config{
				Profile: profile, Network: p2p.PublicNetwork, Peers: infos(neighbour), Allow: []peer.ID{neighbour.id},
			}, newShelf(t))
			await(t, "a narinfo from a friend", func() bool { return friend.asks(t, part, false) != nil })
			if _, err := friend.fetches(t, want, false); err != nil {
				t.Errorf("fetch from a friend: %v", err)
			}
		})
	}
}

func TestLANHasNoDHT(t *testing.T) {
	node := start(t, p2p.Config{Profile: p2p.LAN, Network: p2p.PublicNetwork}, newShelf(t, 1<<20))
	if s := node.Status(); s.DHT != nil || s.Announcing != nil || s.Served == nil {
		t.Errorf("status: %+v", s)
	}
	if err := node.Announce(t.Context()); !errors.Is(err, p2p.ErrNotAnnouncing) {
		t.Errorf("Announce = %v, want ErrNotAnnouncing", err)
	}
	for range node.FindProviders(t.Context(), routing.ContentKey(nix.NARHash{1})) {
		t.Error("found a provider without a DHT")
	}
}

func TestLostPeersAreConnectedAgain(t *testing.T) {
	key, id := newIdentity(t)
	cfg := p2p.Config{Profile: p2p.Private, Network: "team", Identity: key}
	first := start(t, cfg, newShelf(t))
	cfg.Listen = first.Status().Listening
	node := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Bootstrap: infos(first)}, newShelf(t))
	await(t, "a connection", func() bool { return node.connected(first) })
	first.stop()
	await(t, "the loss", func() bool { return len(node.Peers()) == 0 })
	second := start(t, cfg, newShelf(t))
	if second.id != id {
		t.Fatalf("peer %v became %v", id, second.id)
	}
	await(t, "a connection", func() bool { return node.connected(second) })
}

func TestNodeThatDoesNotRunFindsNothing(t *testing.T) {
	key, id := newIdentity(t)
	n, err := p2p.New(p2p.Config{
		Profile: p2p.LAN, Network: "team", Identity: key, Datastore: func(string) ds.Batching { return ds.NewMapDatastore() },
	}, newShelf(t), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	n.Expect(nix.NARHash{1}, true)
	for range n.Narinfos(t.Context(), nix.HashPart{1}, true) {
		t.Error("got a narinfo")
	}
	if _, err := n.Open(t.Context(), swarm.Want{Hash: nix.NARHash{1}, Size: 1}); !errors.Is(err, p2p.ErrNotRunning) {
		t.Errorf("Open = %v, want ErrNotRunning", err)
	}
	want := p2p.Status{Profile: p2p.LAN, Network: "team", PeerID: id, Reachability: network.ReachabilityUnknown}
	if diff := cmp.Diff(want, n.Status()); diff != "" {
		t.Errorf("Status: (-want +got)\n%s", diff)
	}
}

func TestNewRefusesSettingsThatContradict(t *testing.T) {
	key, _ := newIdentity(t)
	store := func(string) ds.Batching { return nil }
	for name, cfg := range map[string]p2p.Config{
		"off":                     {Profile: "off", Network: "team", Identity: key, Datastore: store},
		"private without a name":  {Profile: p2p.Private, Network: p2p.PublicNetwork, Identity: key, Datastore: store},
		"public with a name":      {Profile: p2p.Public, Network: "team", Identity: key, Datastore: store},
		"no network":              {Profile: p2p.LAN, Identity: key, Datastore: store},
		"name with a slash":       {Profile: p2p.LAN, Network: "a/b", Identity: key, Datastore: store},
		"name of 33 characters":   {Profile: p2p.LAN, Network: "abcdefghijklmnopqrstuvwxyz0123456", Identity: key, Datastore: store},
		"no identity":             {Profile: p2p.LAN, Network: "team", Datastore: store},
		"no datastore":            {Profile: p2p.LAN, Network: "team", Identity: key},
		"public without identity": {Profile: p2p.Public, Network: p2p.PublicNetwork, Datastore: store},
	} {
		if _, err := p2p.New(cfg, newShelf(t), zap.NewNop()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRunReportsWhyItCannotListen(t *testing.T) {
	key, _ := newIdentity(t)
	n, err := p2p.New(p2p.Config{
		Profile: p2p.LAN, Network: "team", Identity: key,
		// An address of documentation; this machine has none.
		Listen:    []ma.Multiaddr{ma.StringCast("/ip4/203.0.113.250/tcp/0")},
		Datastore: newDatastore(),
	}, newShelf(t), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "203.0.113.250") {
		t.Errorf("Run = %v, want an error with the address", err)
	}
}
