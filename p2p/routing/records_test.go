package routing_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/state"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/routing/sim"
)

// Records that a server keeps for others are on its disk: they outlive it.
func TestRecordsOutliveTheirServer(t *testing.T) {
	store := dssync.MutexWrap(ds.NewMapDatastore())
	server := joinWith(t, "team", routing.Server, nil, store)
	provider := join(t, "team", routing.Client, server)
	key := path("hello", "hello")
	if err := routing.NewAnnouncer(provider.dht, nil, &provider.cfg, zap.NewNop()).Provide(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	again := joinWith(t, "team", routing.Server, nil, store)
	if err := provider.host.Connect(t.Context(), again.info()); err != nil {
		t.Fatal(err)
	}
	consumer := join(t, "team", routing.Client, again)
	await(t, "the record to be found at the new server", func() bool {
		return consumer.finds(t, routing.ContentKey(key.NARHash), provider)
	})
}

// Each table keeps its records in a datastore of the node's.
func TestEachTableHasItsDatastore(t *testing.T) {
	for name, want := range map[string][]string{
		"team":                {"dht-team"},
		routing.PublicNetwork: {"dht-public-lan", "dht-public-wan"},
	} {
		network, err := sim.New(0, 1)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		d, err := routing.Join(network.NewHost(mathrand.New(mathrand.NewPCG(1, 0))), &routing.Config{
			Network: name,
			Options: network.Options(),
			Datastore: func(name string) ds.Batching {
				names = append(names, name)
				return dssync.MutexWrap(ds.NewMapDatastore())
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("datastores of network %s (-want +got):\n%s", name, diff)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkGetProviders answers queries of a server that keeps 50,000 records, as
// one in a private network of some machines does.
func BenchmarkGetProviders(b *testing.B) {
	const records = 50_000
	db, err := state.Open(filepath.Join(b.TempDir(), "db"), zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	for name, store := range map[string]ds.Batching{
		"map":    dssync.MutexWrap(ds.NewMapDatastore()),
		"badger": db.Datastore("dht"),
	} {
		b.Run(name, func(b *testing.B) {
			s := newRecordServer(b, store)
			for i := range records {
				s.add(b, numbered(i), 0)
			}
			i := 0
			for b.Loop() {
				i += 7919
				s.get(b, numbered(i%records), 1)
			}
		})
	}
}

// BenchmarkGetProvidersOfAPopularKey answers queries for a key that many provide.
func BenchmarkGetProvidersOfAPopularKey(b *testing.B) {
	// A server keeps in memory what it was last asked for.
	const remembered = 256
	for _, providers := range []int{1000, 10_000, 100_000} {
		db, err := state.Open(filepath.Join(b.TempDir(), "db"), zap.NewNop())
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		s := newRecordServer(b, db.Datastore("dht"))
		for i := range providers {
			s.add(b, numbered(0), i)
		}
		b.Run(fmt.Sprintf("disk/%d", providers), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				for i := range remembered {
					s.get(b, numbered(1+i), 0)
				}
				b.StartTimer()
				s.get(b, numbered(0), providers)
			}
		})
		b.Run(fmt.Sprintf("memory/%d", providers), func(b *testing.B) {
			for b.Loop() {
				s.get(b, numbered(0), providers)
			}
		})
	}
}

// recordServer keeps records for others.
type recordServer struct {
	*dht.IpfsDHT
	// provider is the ID of one provider, the end of which is varied.
	provider peer.ID
}

func newRecordServer(b *testing.B, store ds.Batching) *recordServer {
	b.Helper()
	network, err := sim.New(0, 1)
	if err != nil {
		b.Fatal(err)
	}
	h := network.NewHost(mathrand.New(mathrand.NewPCG(1, 0)))
	d, err := dht.New(h, append(network.Options(), dht.ProtocolPrefix(sim.Prefix), dht.DisableValues(), dht.Datastore(store))...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.Close(); err != nil {
			b.Error(err)
		}
	})
	return &recordServer{IpfsDHT: d, provider: network.NewHost(mathrand.New(mathrand.NewPCG(2, 0))).ID()}
}

func (s *recordServer) add(b *testing.B, key []byte, provider int) {
	b.Helper()
	id := []byte(s.provider)
	binary.BigEndian.PutUint32(id[len(id)-4:], uint32(provider))
	if err := s.ProviderStore().AddProvider(b.Context(), key, peer.AddrInfo{ID: peer.ID(id)}); err != nil {
		b.Fatal(err)
	}
}

func (s *recordServer) get(b *testing.B, key []byte, want int) {
	b.Helper()
	found, err := s.ProviderStore().GetProviders(b.Context(), key)
	if err != nil || len(found) != want {
		b.Fatalf("found %d providers, want %d: %v", len(found), want, err)
	}
}

func numbered(i int) []byte {
	hash := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return routing.ContentKey(nix.NARHash(hash)).Hash()
}
