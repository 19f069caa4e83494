package routing_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	mh "github.com/multiformats/go-multihash"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/routing/sim"
)

// simulation is a network in memory of which nodes of the package are part.
type simulation struct {
	*sim.Network
	random *rand.Rand
}

func simulate(t *testing.T, servers int) *simulation {
	t.Helper()
	network, err := sim.New(servers, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	return &simulation{Network: network, random: rand.New(rand.NewPCG(2, 0))}
}

// simulated is a node of a simulation, with what outlasts a restart.
type simulated struct {
	host  *sim.Host
	store ds.Batching
	cfg   routing.Config
}

func (s *simulation) node() *simulated {
	n := &simulated{host: s.NewHost(s.random), store: dssync.MutexWrap(ds.NewMapDatastore())}
	n.cfg = routing.Config{
		Network: "sim", Role: routing.Client, Options: s.Options(),
		Datastore: func(name string) ds.Batching { return namespace.Wrap(n.store, ds.NewKey(name)) },
	}
	return n
}

// announcer is a node that announces.
type announcer struct {
	*routing.Announcer
	changes chan share.Change
	dht     *routing.DHT
	stop    func()
}

func (n *simulated) start(t *testing.T) *announcer {
	t.Helper()
	d, err := routing.Join(n.host, &n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	a := &announcer{changes: make(chan share.Change), dht: d}
	a.Announcer = routing.NewAnnouncer(d, newCatalog(a.changes), &n.cfg, zap.NewNop())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stopped := false
	a.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("announcer: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(a.stop)
	return a
}

// tell adds paths, and says that these were all.
func (a *announcer) tell(paths ...share.Key) { a.changes <- share.Change{Added: paths, Settled: true} }

// finish waits until so many keys have been announced.
func (a *announcer) finish(t *testing.T, keys int) {
	t.Helper()
	await(t, fmt.Sprintf("%d keys to be announced", keys), func() bool {
		p, err := a.Progress(t.Context())
		return err == nil && p.Keys == keys && p.Waiting == 0 && p.Regions == 0
	})
}

// paths makes so many paths with NARs of different sizes.
func paths(count int) []share.Key {
	keys := make([]share.Key, count)
	for i := range keys {
		keys[i] = path(fmt.Sprintf("path %d", i), fmt.Sprintf("NAR %d", i))
	}
	return keys
}

// holders counts those of the servers nearest to a key that have its record.
func (s *simulation) holders(t *testing.T, key mh.Multihash) int {
	t.Helper()
	holders := 0
	for _, server := range s.Closest(key, 20) {
		found, err := server.ProviderStore().GetProviders(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			holders++
		}
	}
	return holders
}

const addProvider = pb.Message_ADD_PROVIDER
