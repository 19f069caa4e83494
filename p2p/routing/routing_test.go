package routing_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	libp2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Of packages that libp2p imports: started at their initialisation.
		goleak.IgnoreAnyFunction("github.com/libp2p/go-flow-metrics.(*sweeper).run"),
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

// node is a host that takes part in a DHT.
type node struct {
	host libp2phost.Host
	dht  *routing.DHT
	cfg  routing.Config
	// hidden takes its addresses from it, as a NAT does.
	hidden atomic.Bool
}

// join makes a node on loopback; bootstrap may be nil. It stops with the test.
func join(t *testing.T, network string, role routing.Role, bootstrap *node) *node {
	t.Helper()
	return joinWith(t, network, role, bootstrap, dssync.MutexWrap(ds.NewMapDatastore()))
}

// joinWith makes a node that keeps its records in store.
func joinWith(t *testing.T, network string, role routing.Role, bootstrap *node, store ds.Batching) *node {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	listen := []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}
	h, err := host.New(&host.Config{Identity: key, Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{host: h}
	n.cfg = routing.Config{
		Network: network,
		Role:    role,
		Announced: func(addrs []ma.Multiaddr) []ma.Multiaddr {
			if n.hidden.Load() {
				return nil
			}
			return host.Announced(listen)(addrs)
		},
		Datastore: func(name string) ds.Batching { return namespace.Wrap(store, ds.NewKey(name)) },
	}
	if bootstrap != nil {
		n.cfg.Bootstrap = []peer.AddrInfo{bootstrap.info()}
	}
	n.dht, err = routing.Join(h, &n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(h.Close(), n.dht.Close()); err != nil {
			t.Error(err)
		}
	})
	if bootstrap != nil {
		if err := h.Connect(t.Context(), bootstrap.info()); err != nil {
			t.Fatal(err)
		}
		await(t, "a peer in the routing table", func() bool { return n.dht.Size() > 0 || network != bootstrap.cfg.Network })
	}
	return n
}

func (n *node) info() peer.AddrInfo { return peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()} }

// announce runs an announcer over the changes; the function that it returns
// stops it.
func (n *node) announce(t *testing.T, changes <-chan share.Change) (*routing.Announcer, func()) {
	t.Helper()
	a := routing.NewAnnouncer(n.dht, newCatalog(changes), &n.cfg, zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop := func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("announcer: %v", err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	return a, stop
}

// finds reports whether a lookup gives this provider.
func (n *node) finds(t *testing.T, key cid.Cid, provider *node) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for info := range n.dht.FindProviders(ctx, key) {
		if info.ID == n.host.ID() {
			t.Error("a node found itself")
		}
		if info.ID == provider.host.ID() {
			if diff := cmp.Diff(provider.host.Addrs(), info.Addrs); diff != "" {
				t.Errorf("addresses of the provider: (-want +got)\n%s", diff)
			}
			return true
		}
	}
	return false
}

// catalog tells the changes that come in.
type catalog struct {
	changes <-chan share.Change

	mu   sync.Mutex
	held map[nix.NARHash]int
}

func newCatalog(changes <-chan share.Change) *catalog {
	return &catalog{changes: changes, held: make(map[nix.NARHash]int)}
}

func (c *catalog) Follow(ctx context.Context, f func(share.Change) error) error {
	for {
		select {
		case change := <-c.changes:
			c.take(change)
			if err := f(change); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *catalog) take(change share.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range change.Removed {
		c.held[k.NARHash]--
	}
	for _, k := range change.Added {
		c.held[k.NARHash]++
	}
}

func (c *catalog) Held(h nix.NARHash) (chunk.Root, bool, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return chunk.Root{}, false, c.held[h] > 0
}

func path(name, nar string) share.Key {
	sum := sha256.Sum256([]byte(name))
	return share.Key{HashPart: nix.HashPart(sum[:20]), NARHash: sha256.Sum256([]byte(nar)), NARSize: 1 << 20}
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestAnnouncedPathsAreFound(t *testing.T) {
	server := join(t, "team", routing.Automatic, nil)
	provider := join(t, "team", routing.Automatic, server)
	consumer := join(t, "team", routing.Client, server)
	if !provider.dht.Serving() || consumer.dht.Serving() {
		t.Error("an automatic node without a public peer must serve, a client must not")
	}

	changes := make(chan share.Change)
	a, _ := provider.announce(t, changes)
	hello, world := path("hello", "hello"), path("world", "world")
	changes <- share.Change{Added: []share.Key{hello}}
	changes <- share.Change{Settled: true}
	for _, key := range []cid.Cid{routing.ContentKey(hello.NARHash), routing.MetadataKey(hello.HashPart)} {
		await(t, "the provider to be found", func() bool { return consumer.finds(t, key, provider) })
	}
	// The second comes when announcing has long begun.
	changes <- share.Change{Added: []share.Key{world}, Settled: true}
	await(t, "the second path to be found", func() bool { return consumer.finds(t, routing.ContentKey(world.NARHash), provider) })
	await(t, "nothing to wait any more", func() bool {
		p, err := a.Progress(t.Context())
		return err == nil && p.Keys == 4 && p.Waiting == 0 && p.Regions == 0
	})
	if consumer.finds(t, routing.ContentKey(path("", "absent").NARHash), provider) {
		t.Error("found a provider of a NAR that nobody announced")
	}
}

func TestNetworksDoNotMix(t *testing.T) {
	server := join(t, "red", routing.Server, nil)
	provider := join(t, "red", routing.Automatic, server)
	stranger := join(t, "blue", routing.Automatic, server)
	a, _ := provider.announce(t, nil)
	key := path("hello", "hello")
	if err := a.Provide(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	await(t, "the provider to be found", func() bool { return server.finds(t, routing.ContentKey(key.NARHash), provider) })
	if stranger.dht.Size() != 0 || stranger.finds(t, routing.ContentKey(key.NARHash), provider) {
		t.Error("a node of another network takes part")
	}
}

func TestSharedNARStaysUntilItsLastPath(t *testing.T) {
	server := join(t, "team", routing.Server, nil)
	provider := join(t, "team", routing.Automatic, server)
	changes := make(chan share.Change)
	a, _ := provider.announce(t, changes)
	keys := func(want int) {
		t.Helper()
		await(t, "the number of keys", func() bool {
			p, err := a.Progress(t.Context())
			return err == nil && p.Keys == want
		})
	}
	one, two := path("one", "same"), path("two", "same")
	changes <- share.Change{Added: []share.Key{one, two}, Settled: true}
	keys(3)
	changes <- share.Change{Removed: []share.Key{one}, Settled: true}
	keys(2)
	// Signed anew: removed and added in one change.
	changes <- share.Change{Removed: []share.Key{two}, Added: []share.Key{two}, Settled: true}
	keys(2)
	changes <- share.Change{Removed: []share.Key{two}, Settled: true}
	keys(0)
}

func TestRestartForgetsWhatWentMeanwhile(t *testing.T) {
	server := join(t, "team", routing.Server, nil)
	provider := join(t, "team", routing.Automatic, server)
	gone, stays := path("gone", "gone"), path("stays", "stays")
	changes := make(chan share.Change)
	a, stop := provider.announce(t, changes)
	changes <- share.Change{Added: []share.Key{gone, stays}, Settled: true}
	await(t, "four keys", func() bool { p, err := a.Progress(t.Context()); return err == nil && p.Keys == 4 })
	stop()

	changes = make(chan share.Change)
	a, _ = provider.announce(t, changes)
	changes <- share.Change{Added: []share.Key{stays}}
	changes <- share.Change{Settled: true}
	await(t, "two keys", func() bool { p, err := a.Progress(t.Context()); return err == nil && p.Keys == 2 })
}

// What came into the store while the node was down, and before it had an address
// again, is announced at once, although its region of the DHT was not long ago.
func TestRestartAnnouncesWhatCameMeanwhile(t *testing.T) {
	server := join(t, "team", routing.Server, nil)
	provider := join(t, "team", routing.Automatic, server)
	old, fresh := path("old", "old"), path("fresh", "fresh")
	// start runs the announcer on a node that has an address only later.
	start := func(keys int, paths ...share.Key) (*routing.Announcer, func()) {
		provider.hidden.Store(true)
		changes := make(chan share.Change)
		a, stop := provider.announce(t, changes)
		changes <- share.Change{Added: paths, Settled: true}
		await(t, "the keys", func() bool {
			p, err := a.Progress(t.Context())
			return err == nil && p.Keys == keys && p.Waiting == keys
		})
		provider.hidden.Store(false)
		return a, stop
	}
	a, stop := start(2, old)
	// The region as a whole is announced, which the provider remembers.
	await(t, "the old path to be found", func() bool { return server.finds(t, routing.ContentKey(old.NARHash), provider) })
	await(t, "nothing to wait any more", func() bool {
		p, err := a.Progress(t.Context())
		return err == nil && p.Keys == 2 && p.Waiting == 0 && p.Regions == 0
	})
	stop()
	start(4, old, fresh)
	for _, key := range []cid.Cid{routing.ContentKey(fresh.NARHash), routing.MetadataKey(fresh.HashPart)} {
		await(t, "the fresh path to be found", func() bool { return server.finds(t, key, provider) })
	}
}

func TestProvideReportsTheOutcome(t *testing.T) {
	lonely := join(t, "team", routing.Server, nil)
	a, _ := lonely.announce(t, nil)
	if err := a.Provide(t.Context(), path("hello", "hello")); err == nil {
		t.Error("Provide without any peer succeeded")
	}
	other := join(t, "team", routing.Server, lonely)
	await(t, "the other in the routing table", func() bool { return lonely.dht.Size() > 0 })
	if err := a.Provide(t.Context(), path("hello", "hello"), path("world", "world")); err != nil {
		t.Error(err)
	}
	if !other.finds(t, routing.ContentKey(path("world", "world").NARHash), lonely) {
		t.Error("what Provide has announced is not found")
	}
}

func TestMaxProviders(t *testing.T) {
	server := join(t, "team", routing.Server, nil)
	consumer := join(t, "team", routing.Client, server)
	key := routing.ContentKey(path("hello", "hello").NARHash)
	var providers []peer.ID
	for range routing.MaxProviders + 5 {
		p := join(t, "team", routing.Client, server)
		if err := routing.NewAnnouncer(p.dht, nil, &p.cfg, zap.NewNop()).Provide(t.Context(), path("hello", "hello")); err != nil {
			t.Fatal(err)
		}
		providers = append(providers, p.host.ID())
	}
	var found []peer.ID
	for info := range consumer.dht.FindProviders(t.Context(), key) {
		found = append(found, info.ID)
	}
	slices.Sort(found)
	if len(slices.Compact(found)) != routing.MaxProviders {
		t.Errorf("found %d providers, want %d", len(found), routing.MaxProviders)
	}
	for _, p := range found {
		if !slices.Contains(providers, p) {
			t.Errorf("found %v, which provides nothing", p)
		}
	}
	for range consumer.dht.FindProviders(t.Context(), key) {
		break // Must not leave anything running.
	}
}
