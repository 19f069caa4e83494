package routing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"

	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// cycle is how often every key is announced.
const cycle = 22 * time.Hour

// budgetFor returns the budget that is just enough for so many keys of a node.
func (s *simulation) budgetFor(t *testing.T, keys int) int64 {
	t.Helper()
	a := s.node().start(t)
	defer a.stop()
	a.tell(path("probe", "probe"))
	a.finish(t, 2)
	p, err := a.Progress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	perKey := p.SentBytes / 2
	return perKey*int64(keys)*24/22 + perKey/2
}

// sized is a path whose NAR has this size.
func sized(name string, size int64, root bool) share.Key {
	k := path(name, name)
	k.NARSize, k.Root = size, root
	return k
}

// announced lists which of the paths' keys the DHT has, as "content NAME" and
// "metadata NAME".
func (s *simulation) announced(t *testing.T, paths map[string]share.Key) []string {
	t.Helper()
	found := []string{}
	for name, k := range paths {
		for kind, key := range map[string]mh.Multihash{
			"content":  routing.ContentKey(k.NARHash).Hash(),
			"metadata": routing.MetadataKey(k.HashPart).Hash(),
		} {
			if s.holders(t, key) > 0 {
				found = append(found, kind+" "+name)
			}
		}
	}
	slices.Sort(found)
	return found
}

// provides reports whether a node has announced a path's content key.
func (s *simulation) provides(t *testing.T, node *simulated, k share.Key) bool {
	t.Helper()
	key := routing.ContentKey(k.NARHash).Hash()
	for _, server := range s.Closest(key, 20) {
		found, err := server.ProviderStore().GetProviders(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(found, func(p peer.AddrInfo) bool { return p.ID == node.host.ID() }) {
			return true
		}
	}
	return false
}

// The budget is spent by value, and exactly: a larger one adds the next keys in
// the order, and what is worth more displaces what is worth less.
func TestBudgetGoesToTheMostValuable(t *testing.T) {
	const mib = 1 << 20
	held := map[string]share.Key{
		"root":   sized("root", 1000, true),
		"top":    sized("top", 2*mib, true),
		"huge":   sized("huge", 900*mib, false),
		"large":  sized("large", 90*mib, false),
		"medium": sized("medium", 9*mib, false),
		"small":  sized("small", 9000, false),
	}
	// Metadata keys that take turns come before the small content key; there are
	// four.
	order := []string{
		"metadata root", "metadata top", "content top", "content root",
		"content huge", "content large", "content medium", "metadata", "content small",
	}
	synctest.Test(t, func(t *testing.T) {
		for budget := range 8 {
			s := simulate(t, 60)
			node := s.node()
			node.cfg.AnnounceBudget = s.budgetFor(t, budget)
			a := node.start(t)
			var all []share.Key
			for _, k := range held {
				all = append(all, k)
			}
			a.tell(all...)
			a.finish(t, budget)
			time.Sleep(time.Minute)
			want := slices.Clone(order[:budget])
			// The metadata keys of both roots are worth the same.
			if budget == 1 {
				want = s.announced(t, map[string]share.Key{"root": held["root"], "top": held["top"]})
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, s.announced(t, held)); diff != "" || budget == 1 && len(want) != 1 {
				t.Errorf("for %d keys (-want +got):\n%s", budget, diff)
			}
			p, err := a.Progress(t.Context())
			if err != nil || p.Keys != budget || p.Keys+p.Skipped+p.Resting != 12 {
				t.Errorf("for %d keys: %+v, %v", budget, p, err)
			}
		}
	})
}

// Small NARs come after metadata keys whose turn it is.
func TestSmallNARsComeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 25)
		node := s.node()
		node.cfg.AnnounceBudget = s.budgetFor(t, 1)
		held := make(map[string]share.Key)
		var all []share.Key
		for i := range 40 {
			k := sized(fmt.Sprint(i), 60_000, false)
			held[fmt.Sprint(i)] = k
			all = append(all, k)
		}
		a := node.start(t)
		a.tell(all...)
		await(t, "a key to be announced", func() bool { return node.records() > 0 })
		found := s.announced(t, held)
		if p, err := a.Progress(t.Context()); err != nil || p.Resting == 40 {
			t.Fatalf("no metadata key has its turn: %+v, %v", p, err)
		}
		if len(found) != 1 || !strings.HasPrefix(found[0], "metadata") {
			t.Errorf("announced %q, want one metadata key", found)
		}
	})
}

// A new path that is worth more takes the place of one that is worth less.
func TestNewPathsDisplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 25)
		node := s.node()
		node.cfg.AnnounceBudget = s.budgetFor(t, 2)
		a := node.start(t)
		held := map[string]share.Key{"a": sized("a", 1<<20, false), "b": sized("b", 2<<20, false)}
		a.tell(held["a"], held["b"])
		a.finish(t, 2)
		held["c"] = sized("c", 3<<20, false)
		a.tell(held["c"])
		await(t, "the new path to be announced", func() bool {
			return slices.Contains(s.announced(t, held), "content c")
		})
		// Records live for 48 hours; after that only what is still announced is
		// found.
		time.Sleep(60 * time.Hour)
		if diff := cmp.Diff([]string{"content b", "content c"}, s.announced(t, held)); diff != "" {
			t.Errorf("after two days (-want +got):\n%s", diff)
		}
	})
}

// A restart with the same budget announces nothing again, and one with a larger
// budget what that reaches further for.
func TestLargerBudgetAnnouncesMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 60)
		node := s.node()
		held := make([]share.Key, 40)
		for i := range held {
			held[i] = sized(fmt.Sprint(i), int64(i+1)<<20, false)
		}
		for _, budget := range []int{10, 10, 25, 25} {
			node.cfg.AnnounceBudget = s.budgetFor(t, budget)
			a := node.start(t)
			a.tell(held...)
			a.finish(t, budget)
			time.Sleep(time.Hour)
			a.stop()
			if got, want := node.records(), budget*20; got != want {
				t.Errorf("%d records were sent in all for %d keys, want %d", got, budget, want)
			}
			for i, k := range held {
				if got, want := s.holders(t, routing.ContentKey(k.NARHash).Hash()) > 0, i >= 40-budget; got != want {
					t.Errorf("with a budget for %d keys, the path of %d MiB is announced: %t, want %t", budget, i+1, got, want)
				}
			}
		}
	})
}

// Where there is a budget, metadata keys of paths that are no roots take turns:
// in eight cycles each has one. Everything else is announced in each cycle.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 12)
		node := s.node()
		node.cfg.AnnounceBudget = 1 << 30
		held := make([]share.Key, 24)
		for i := range held {
			held[i] = sized(fmt.Sprint(i), 1<<20, i == 0)
		}
		a := node.start(t)
		a.tell(held...)
		await(t, "the first cycle", func() bool {
			p, err := a.Progress(t.Context())
			return err == nil && p.Keys > 0 && p.Waiting == 0
		})
		had := make(map[int]int)
		for range 8 * 4 {
			time.Sleep(cycle / 4)
			for i, k := range held {
				if s.holders(t, routing.MetadataKey(k.HashPart).Hash()) > 0 {
					had[i]++
				}
				if got := s.holders(t, routing.ContentKey(k.NARHash).Hash()); got != 12 {
					t.Errorf("content key %d is at %d servers", i, got)
				}
			}
		}
		for i := range held {
			// Its records live for two cycles and a bit, of four looks each.
			if i > 0 && (had[i] == 0 || had[i] > 10) {
				t.Errorf("metadata key %d was found at %d of 32 looks", i, had[i])
			}
		}
		if had[0] != 32 {
			t.Errorf("the root's metadata key was found at %d of 32 looks", had[0])
		}
	})
}

// A NAR that others provide too, as a lookup has shown, is worth less; also after
// a restart.
func TestRareNARsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 25)
		common, rare := sized("common", 9<<20, false), sized("rare", 4<<20, false)
		for range 2 {
			other := s.node().start(t)
			time.Sleep(time.Minute) // Until it is part of the network.
			if err := other.Provide(t.Context(), common); err != nil {
				t.Fatal(err)
			}
		}
		node := s.node()
		node.cfg.AnnounceBudget = s.budgetFor(t, 1)
		a := node.start(t)
		time.Sleep(time.Minute)
		for range a.dht.FindProviders(t.Context(), routing.ContentKey(common.NARHash)) {
			continue // As before a fetch.
		}
		for range 2 {
			a.tell(common, rare)
			a.finish(t, 1)
			for key, want := range map[share.Key]bool{common: false, rare: true} {
				if got := s.provides(t, node, key); got != want {
					t.Errorf("the NAR of %d MiB is announced: %t, want %t", key.NARSize>>20, got, want)
				}
			}
			a.stop()
			a = node.start(t)
		}
	})
}

// What a key costs with the addresses that nodes have. docs/scale.md says how many
// the budget reaches for.
func TestCostOfAKey(t *testing.T) {
	const budget = 200 << 20
	relay := "/p2p/12D3KooWEPTdB5fFzG7W3WMLoi9yTA9rC6zMbxF8pd14BKkAzwFX/p2p-circuit"
	direct := []string{
		"/ip4/11.22.33.44/tcp/8461", "/ip4/11.22.33.44/udp/8461/quic-v1",
		"/ip6/2a01:4f8:1:2:3:4:5:6/tcp/8461", "/ip6/2a01:4f8:1:2:3:4:5:6/udp/8461/quic-v1",
	}
	relayed := []string{"/ip4/55.66.77.88/tcp/4001" + relay, "/ip4/55.66.77.88/udp/4001/quic-v1" + relay}
	for name, test := range map[string]struct {
		addrs []string
		// least and most are in bytes a record.
		least, most int64
	}{
		"IPv4":                  {direct[:2], 140, 180},
		"IPv4 and IPv6":         {direct, 180, 240},
		"IPv4, IPv6 and relays": {append(slices.Clone(direct), relayed...), 300, 400},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := simulate(t, 25)
			node := s.node()
			var addrs []ma.Multiaddr
			for _, addr := range test.addrs {
				addrs = append(addrs, ma.StringCast(addr))
			}
			node.host.SetAddrs(addrs...)
			a := node.start(t)
			a.tell(path("probe", "probe"))
			a.finish(t, 2)
			p, err := a.Progress(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			record := p.SentBytes / (2 * 20)
			if record < test.least || record > test.most {
				t.Errorf("%s: a record takes %d bytes", name, record)
			}
			t.Logf("%s: %d bytes a record, %d a key, %d keys in 22 hours", name, record, 20*record, budget*22/24/(20*record))
		})
	}
}
