package routing_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p-kad-dht/provider/keystore"
	mh "github.com/multiformats/go-multihash"

	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/routing/sim"
)

// In networks of every size a record is where lookups end: on the 20 servers
// nearest to its key.
func TestRecordsGoToTheNearestServers(t *testing.T) {
	for _, servers := range []int{15, 40, 60, 100, 300} {
		t.Run(fmt.Sprint(servers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := simulate(t, servers)
				node := s.node()
				held := paths(300)
				a := node.start(t)
				a.tell(held...)
				a.finish(t, 600)
				for _, k := range held[:100] {
					for _, key := range []mh.Multihash{routing.ContentKey(k.NARHash).Hash(), routing.MetadataKey(k.HashPart).Hash()} {
						if got := s.holders(t, key); got != min(20, servers) {
							t.Errorf("%d of the nearest servers have %v", got, key)
						}
					}
				}
			})
		})
	}
}

// The reason for placement: what the sweeping provider does by itself in a
// network of more than one region. When this test fails because it does better,
// placement has done its duty.
func TestSweepingProviderMissesNearestServers(t *testing.T) {
	const keys = 300
	for _, servers := range []int{40, 60, 100, 300} {
		synctest.Test(t, func(t *testing.T) {
			s := simulate(t, servers)
			var all []mh.Multihash
			for _, k := range paths(keys) {
				all = append(all, routing.ContentKey(k.NARHash).Hash())
			}
			s.provideBare(t, all)
			sum, least := 0, 20
			for _, key := range all {
				n := s.holders(t, key)
				sum, least = sum+n, min(least, n)
			}
			t.Logf("of the 20 nearest of %d servers %.1f have a record on average, and %d at least", servers, float64(sum)/keys, least)
			if exact := least == 20; exact != (servers == 40) {
				t.Errorf("every record is where it belongs: %t", exact)
			}
		})
	}
}

// provideBare announces keys by the sweeping provider alone, as it is.
func (s *simulation) provideBare(t *testing.T, all []mh.Multihash) {
	t.Helper()
	host := s.NewHost(s.random)
	d, err := dht.New(host, append(s.Options(),
		dht.ProtocolPrefix(sim.Prefix), dht.Mode(dht.ModeClient), dht.DisableValues())...)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	await(t, "a peer in the routing table", func() bool { return d.RoutingTable().Size() > 0 })
	if err := <-d.RefreshRoutingTable(); err != nil {
		t.Fatal(err)
	}
	keys, err := keystore.NewKeystore(dssync.MutexWrap(ds.NewMapDatastore()))
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	if _, err := keys.Put(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	p, err := provider.New(
		provider.WithHost(host), provider.WithRouter(d), provider.WithMessageSender(d.MessageSender()),
		provider.WithSelfAddrs(d.FilteredAddrs), provider.WithKeystore(keys),
		provider.WithDatastore(dssync.MutexWrap(ds.NewMapDatastore())))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	await(t, "all keys to be announced", func() bool {
		stats, err := p.Stats(t.Context())
		return err == nil && stats.Operations.Past.KeysProvided >= int64(len(all)) && stats.Workers.Active == 0
	})
}
