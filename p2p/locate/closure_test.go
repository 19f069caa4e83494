package locate_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	libp2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/locate"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

const (
	closurePaths = 500
	maxWalks     = 10
	dhtServers   = 8
)

// node is a host on loopback that takes part in a DHT.
type node struct {
	host libp2phost.Host
	dht  *routing.DHT
	cfg  routing.Config
}

// join makes a node, which stops with the test; bootstrap may be nil.
func join(t *testing.T, role routing.Role, bootstrap *node) *node {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	listen := []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}
	n := &node{}
	n.host, err = host.New(&host.Config{
		Identity: key, Listen: listen, Protocols: exchange.Protocols(routing.Prefix("team")), Service: exchange.ServiceName,
	})
	if err != nil {
		t.Fatal(err)
	}
	store := dssync.MutexWrap(ds.NewMapDatastore())
	n.cfg = routing.Config{
		Network: "team", Role: role, Announced: host.Announced(listen),
		Datastore: func(name string) ds.Batching { return namespace.Wrap(store, ds.NewKey(name)) },
	}
	if bootstrap != nil {
		n.cfg.Bootstrap = []peer.AddrInfo{exchangetest.Info(bootstrap.host)}
	}
	if n.dht, err = routing.Join(n.host, &n.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(n.host.Close(), n.dht.Close()); err != nil {
			t.Error(err)
		}
	})
	if bootstrap != nil {
		exchangetest.Connect(t, n.host, bootstrap.host)
		await(t, "a peer in the routing table", func() bool { return n.dht.Size() > 0 })
	}
	return n
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// runs runs something until the test ends.
func runs(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// catalog is what a provider announces.
type catalog []share.Key

func (c catalog) Follow(ctx context.Context, f func(share.Change) error) error {
	if err := f(share.Change{Added: c, Settled: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (c catalog) Held(h nix.NARHash) (root chunk.Root, known, held bool) {
	return chunk.Root{}, false, slices.ContainsFunc(c, func(k share.Key) bool { return k.NARHash == h })
}

// provide makes a node that holds a closure and has announced it, and that
// nobody need be connected with.
func provide(t *testing.T, c *closure.Closure, dir string, bootstrap *node) {
	t.Helper()
	shelf := &exchangetest.Shelf{}
	var keys catalog
	for _, info := range c.Records {
		nar, err := os.ReadFile(filepath.Join(dir, info.URL))
		if err != nil {
			t.Fatal(err)
		}
		if got := shelf.Add(nar); got != info.NARHash {
			t.Fatalf("%s has NAR hash %v, want %v", info.StorePath, got, info.NARHash)
		}
		shelf.AddNarinfo(info)
		keys = append(keys, share.Key{HashPart: info.StorePath.HashPart(), NARHash: info.NARHash, NARSize: info.NARSize})
	}
	// A client of the DHT is in nobody's routing table.
	n := join(t, routing.Client, bootstrap)
	prefix := routing.Prefix("team")
	server := exchange.NewServer(n.host, shelf, exchange.ServerConfig{Prefix: prefix}, zap.NewNop())
	exchangetest.Run(t, n.host, server, exchange.Protocols(prefix)[2])
	a := routing.NewAnnouncer(n.dht, keys, &n.cfg, zap.NewNop())
	runs(t, a.Run)
	await(t, "the closure to be announced", func() bool {
		p, err := a.Progress(t.Context())
		return err == nil && p.Keys == 2*len(keys) && p.Waiting == 0 && p.Regions == 0
	})
}

// consumer finds and fetches with nothing but the DHT to begin with.
type consumer struct {
	*locate.Finder
	swarm    *swarm.Swarm
	registry *prometheus.Registry
}

func newConsumer(t *testing.T, bootstrap *node) *consumer {
	t.Helper()
	n := join(t, routing.Client, bootstrap)
	c := &consumer{registry: prometheus.NewRegistry()}
	ledger := locate.NewLedger()
	client := exchange.NewClient(n.host, exchange.ClientConfig{Prefix: routing.Prefix("team"), Observer: ledger}, zap.NewNop())
	c.Finder = locate.New(locate.Config{
		Client: client, Book: n.host.Peerstore(), DHT: n.dht, Ledger: ledger, Registerer: c.registry,
		Neighbours: func(bool) []peer.ID { return nil },
		// On a busy machine a provider takes longer to answer than is worth waiting for.
		Patience: 30 * time.Second,
	}, zap.NewNop())
	runs(t, c.Run)
	c.swarm = swarm.New(client, c.Finder, swarm.NewStanding(), swarm.Config{}, zap.NewNop())
	return c
}

// record asks peers for a record, as for a narinfo that Nix wants.
func (c *consumer) record(ctx context.Context, part nix.HashPart) (*narinfo.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for info := range c.Narinfos(ctx, part, true) {
		return info, nil
	}
	return nil, fmt.Errorf("nobody has a record of %s", part)
}

// fetch gets a NAR whole, in as many attempts as the substituter makes.
func (c *consumer) fetch(ctx context.Context, info *narinfo.Info) (err error) {
	defer c.Dismiss(info.NARHash)
	for range 3 {
		if err = c.tryFetch(ctx, info); err == nil {
			return nil
		}
	}
	return err
}

func (c *consumer) tryFetch(ctx context.Context, info *narinfo.Info) error {
	t, err := c.swarm.Open(ctx, swarm.Want{Hash: info.NARHash, Size: info.NARSize, Strangers: true})
	if err != nil {
		return fmt.Errorf("%s: %w", info.StorePath, err)
	}
	defer t.Close()
	var nar bytes.Buffer
	if _, err := io.Copy(&nar, t); err != nil {
		return fmt.Errorf("%s: %w", info.StorePath, err)
	}
	t.Verdict(true)
	return nil
}

// A closure that one peer holds, of which nothing but the DHT tells, asked for
// as Nix does: all records, references as they become known; then the NARs,
// references before what refers to them.
func TestClosureThatOnePeerHoldsNeedsFewWalks(t *testing.T) {
	key, err := narinfo.GenerateSecretKey("test-1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c, err := closure.Generate(t.Context(), dir, closure.Config{Paths: closurePaths, Seed: 1, Key: key, MaxFileSize: 2 << 10})
	if err != nil {
		t.Fatal(err)
	}
	byPart := make(map[nix.HashPart]*narinfo.Info)
	for _, info := range c.Records {
		byPart[info.StorePath.HashPart()] = info
	}
	bootstrap := join(t, routing.Server, nil)
	for range dhtServers - 1 {
		join(t, routing.Server, bootstrap)
	}
	provide(t, c, dir, bootstrap)

	for _, tt := range []struct {
		name string
		// record is where the records come from.
		record func(*consumer, nix.HashPart) (*narinfo.Info, error)
	}{
		{"records of an upstream", func(_ *consumer, part nix.HashPart) (*narinfo.Info, error) { return byPart[part], nil }},
		{"records of peers", func(c *consumer, part nix.HashPart) (*narinfo.Info, error) { return c.record(t.Context(), part) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			consumer := newConsumer(t, bootstrap)
			records, err := closure.Walk(c.Root().StorePath.HashPart(), func(part nix.HashPart) (*narinfo.Info, error) {
				info, err := tt.record(consumer, part)
				if err == nil {
					consumer.Expect(info.NARHash, true)
				}
				return info, err
			})
			if err != nil || len(records) != closurePaths {
				t.Fatalf("got %d records of %d: %v", len(records), closurePaths, err)
			}
			var fetched atomic.Int32
			g, ctx := errgroup.WithContext(t.Context())
			g.SetLimit(closure.NARsAtOnce)
			for _, info := range c.Records {
				g.Go(func() error {
					defer fetched.Add(1)
					return consumer.fetch(ctx, info)
				})
			}
			if err := g.Wait(); err != nil {
				t.Fatalf("after %d NARs: %v", fetched.Load(), err)
			}
			walks := counted(t, consumer.registry, "nar_p2p_dht_walks_total")
			requests := counted(t, consumer.registry, "nar_p2p_locate_requests_total")
			t.Logf("%d paths: %v walks, %v requests", closurePaths, walks, requests)
			if walks < 1 || walks > maxWalks {
				t.Errorf("%d paths took %v walks, want at most %d", closurePaths, walks, maxWalks)
			}
		})
	}
}
