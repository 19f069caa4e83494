package locate_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/locate"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// What peers were not found for is asked of whoever is found later, and no walk
// is needed for it: a node announces only part of what it holds.
func TestWhoIsFoundLaterIsAskedAboutWhatWasNotFound(t *testing.T) {
	inWorld(t, func(w *world) {
		w.holds["c"] = append(w.holds["c"], hash(1), hash(2))
		w.dht[routing.ContentKey(hash(2))] = []peer.ID{"c"}
		w.f.Expect(hash(1), true)
		w.settle()
		if w.f.Known(hash(1)) {
			w.t.Fatal("found without a provider record")
		}
		w.f.Expect(hash(2), true)
		w.settle()
		if !w.f.Known(hash(1)) || !w.f.Known(hash(2)) {
			w.t.Error("not found although a peer is known that holds both")
		}
		w.wantTraffic([]question{{"c", 2}}, 2)
		if diff := gocmp.Diff([]peer.ID{"c"}, w.f.Holders(hash(1))); diff != "" {
			w.t.Errorf("Holders() (-want +got)\n%s", diff)
		}
		w.ledger.Failed("c")
		if got := w.f.Holders(hash(1)); got != nil {
			w.t.Errorf("Holders() = %v, of which none can be reached", got)
		}
	})
}

func TestLookupsEndWhenNobodyNeedsThem(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 100 {
			w.f.Expect(hash(i), true)
		}
		time.Sleep(searchTime / 2)
		synctest.Wait()
		begun := w.walking.Load()
		if begun == 0 || begun > 4 {
			w.t.Fatalf("%d walks at once", begun)
		}
		// As long as anything is wanted walks go on that may help it.
		for i := range 99 {
			w.f.Dismiss(hash(i))
		}
		synctest.Wait()
		if w.walking.Load() == 0 {
			w.t.Error("no walk goes on although something is expected")
		}
		w.f.Dismiss(hash(99))
		synctest.Wait()
		if w.walking.Load() != 0 {
			w.t.Errorf("%d walks go on for nobody", w.walking.Load())
		}
		w.settle()
		if _, searched := w.traffic(); searched > int(begun)+1 {
			w.t.Errorf("%d walks, of which %d had begun when all was dismissed", searched, begun)
		}
		if got := counted(w.t, w.registry, "nar_p2p_dht_walks_total", "content", "cancelled"); got == 0 {
			w.t.Error("no walk counts as cancelled")
		}
	})
}

func TestWhoStopsReadingEndsTheLookup(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, cancel := context.WithTimeout(w.t.Context(), searchTime/2)
		defer cancel()
		w.f.Expect(hash(1), true)
		for range w.f.Providers(ctx, hash(1), true) {
			w.t.Error("found a holder")
		}
		synctest.Wait()
		if w.walking.Load() != 0 {
			w.t.Errorf("%d walks for nobody", w.walking.Load())
		}
		// What was given up can be looked for again.
		w.change(func() {
			w.holds["c"] = append(w.holds["c"], hash(1))
			w.dht[routing.ContentKey(hash(1))] = []peer.ID{"c"}
		})
		if got, _ := w.providers(hash(1), true); !slices.Equal(got, []peer.ID{"c"}) {
			w.t.Errorf("providers: %v", got)
		}
	})
}

func TestExpectationsEndByThemselves(t *testing.T) {
	inWorld(t, func(w *world) {
		w.f.Expect(hash(1), true)
		time.Sleep(3 * time.Minute)
		w.change(func() {
			w.holds["c"] = append(w.holds["c"], hash(1), hash(2))
			w.dht[routing.ContentKey(hash(2))] = []peer.ID{"c"}
		})
		w.f.Expect(hash(2), true)
		w.settle()
		if asked, _ := w.traffic(); !slices.Equal(asked, []question{{"c", 1}}) {
			w.t.Errorf("questions: %v, want one about what is expected", asked)
		}
	})
}

// With little to be found walks take turns; where nothing helps there are more
// of them at once.
func TestMoreWalksWhereNoneHelps(t *testing.T) {
	inWorld(t, func(w *world) {
		w.dht[routing.ContentKey(hash(0))] = nil // not offline
		for i := range 200 {
			w.f.Expect(hash(i), true)
		}
		most := int32(0)
		for w.walking.Load() > 0 || most == 0 {
			time.Sleep(searchTime / 4)
			synctest.Wait()
			most = max(most, w.walking.Load())
		}
		if most != 16 {
			w.t.Errorf("%d walks at once, want 16 in the end", most)
		}
		if got := counted(w.t, w.registry, "nar_p2p_dht_walks_total", "content", "nothing"); got != 200 {
			w.t.Errorf("%v walks counted, want 200", got)
		}
		time.Sleep(time.Minute)
		if got := counted(w.t, w.registry, "nar_p2p_dht_walks_per_closure"); got != 200 {
			w.t.Errorf("%v walks for the closure, want 200", got)
		}
	})
}

func TestHoldersComeBestFirst(t *testing.T) {
	inWorld(t, func(w *world) {
		all := []peer.ID{"relayed", "direct", "failed once", "far", "near", "connected", "lan"}
		w.reach = map[peer.ID]locate.Reach{
			"relayed": locate.Relayed, "direct": locate.Direct, "failed once": locate.Direct, "far": locate.Direct,
			"near": locate.Direct, "connected": locate.Connected, "lan": locate.LAN,
		}
		w.neighbours[true] = all
		for _, p := range all {
			w.holds[p] = append(w.holds[p], hash(1))
		}
		w.f.Expect(hash(1), true)
		w.settle()
		w.ledger.Answered("far", time.Second)
		w.ledger.Failed("failed once")
		time.Sleep(time.Minute)
		got, _ := w.providers(hash(1), true)
		want := []peer.ID{"lan", "connected", "near", "direct", "far", "failed once", "relayed"}
		// Near and direct differ in nothing.
		if i := slices.Index(got, "direct"); i == 2 {
			got[2], got[3] = got[3], got[2]
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			w.t.Errorf("providers: (-want +got)\n%s", diff)
		}
	})
}

func TestTheDeadComeLast(t *testing.T) {
	inWorld(t, func(w *world) {
		w.neighbours[true] = []peer.ID{"a", "b"}
		w.holds["a"] = append(w.holds["a"], hash(1), hash(2))
		w.holds["b"] = append(w.holds["b"], hash(1))
		w.f.Expect(hash(1), true)
		w.f.Expect(hash(2), true)
		w.settle()
		w.ledger.Failed("a")
		if !w.f.Known(hash(1)) || w.f.Known(hash(2)) {
			w.t.Error("Known is wrong about holders that cannot be reached")
		}
		w.change(func() { w.dht[routing.ContentKey(hash(1))] = nil })
		if got, _ := w.providers(hash(1), true); !slices.Equal(got, []peer.ID{"b", "a"}) {
			w.t.Errorf("providers: %v", got)
		}
		// Where nobody else is known, the DHT is searched at once.
		w.traffic()
		w.change(func() {
			w.holds["c"] = append(w.holds["c"], hash(2))
			w.dht[routing.ContentKey(hash(2))] = []peer.ID{"c"}
		})
		start := time.Now()
		for info := range w.f.Providers(w.t.Context(), hash(2), true) {
			if info.ID != "c" || time.Since(start) > time.Second {
				w.t.Errorf("%v after %v", info.ID, time.Since(start))
			}
			break
		}
		// It is back.
		w.ledger.Reached("a")
		if !w.f.Known(hash(2)) {
			w.t.Error("a holder that is back is not known")
		}
	})
}

// A node that has just started has not met its neighbours yet.
func TestFirstNeighbourIsWaitedFor(t *testing.T) {
	patience := func(cfg *locate.Config) { cfg.DHT, cfg.JoinPatience = nil, 3*time.Second }
	inWorld(t, func(w *world) {
		w.holds["a"], w.records["a"] = append(w.holds["a"], hash(1)), parts(0, 1)
		w.f.Expect(hash(1), true)
		time.AfterFunc(time.Second, func() {
			w.change(func() { w.neighbours[true] = []peer.ID{"a"} })
			w.f.Neighbour("a")
		})
		if took := w.fromEach("a", part(0)); took > 1100*time.Millisecond {
			w.t.Errorf("took %v", took)
		}
		if got, _ := w.providers(hash(1), true); !slices.Equal(got, []peer.ID{"a"}) {
			w.t.Errorf("providers: %v", got)
		}
	}, patience)
	inWorld(t, func(w *world) {
		if got, took := w.from(part(0), true); got != "" || took != 3*time.Second {
			w.t.Errorf("got a record of %q after %v, want none after 3 s", got, took)
		}
		if got, took := w.from(part(1), true); got != "" || took != 0 {
			w.t.Errorf("later: got a record of %q after %v, want none at once", got, took)
		}
	}, patience)
}

func TestUnusablePeersAreNotAsked(t *testing.T) {
	inWorld(t, func(w *world) {
		w.holds["bad"] = append(w.holds["bad"], hash(1))
		w.dht = map[cid.Cid][]peer.ID{routing.ContentKey(hash(1)): {"bad"}}
		if got, _ := w.providers(hash(1), true); got != nil {
			w.t.Errorf("providers: %v", got)
		}
		w.wantTraffic(nil, 1)
	}, func(cfg *locate.Config) { cfg.Usable = func(p peer.ID) bool { return p != "bad" } })
}

// Of holders that can be reached alike, those come first that bring more, and
// whoever is not known yet stands in the middle.
func TestHoldersAreRankedByWhatTheyBring(t *testing.T) {
	rates := map[peer.ID]float64{"a": 100e3, "b": 0, "c": 50e6}
	inWorld(t, func(w *world) {
		w.neighbours[true] = []peer.ID{"a", "b", "c"}
		for p := range rates {
			w.holds[p] = append(w.holds[p], hash(1))
		}
		w.f.Expect(hash(1), true)
		w.settle()
		if diff := gocmp.Diff([]peer.ID{"c", "b", "a"}, w.f.Holders(hash(1))); diff != "" {
			w.t.Errorf("Holders() (-want +got)\n%s", diff)
		}
	}, func(cfg *locate.Config) { cfg.Rate = func(p peer.ID) float64 { return rates[p] } })
}

// What is glanced at is asked of those who are known, and of whoever is found for
// something else, but not of the DHT until it is wanted.
func TestGlance(t *testing.T) {
	inWorld(t, func(w *world) {
		w.holds["a"] = []nix.NARHash{hash(1)}
		w.holds["c"] = []nix.NARHash{hash(2), hash(3)}
		w.neighbours[true] = []peer.ID{"a"}
		w.dht[routing.ContentKey(hash(3))] = []peer.ID{"c"}
		for _, h := range []nix.NARHash{hash(1), hash(2)} {
			w.f.Glance(h, true)
			w.settle()
		}
		if !w.f.Known(hash(1)) || w.f.Known(hash(2)) {
			w.t.Error("a neighbour was not asked")
		}
		w.wantTraffic([]question{{"a", 1}, {"a", 1}}, 0)
		w.f.Expect(hash(3), true)
		w.settle()
		if !w.f.Known(hash(2)) || !w.f.Known(hash(3)) {
			w.t.Error("whoever was found for something else was not asked")
		}
	})
	inWorld(t, func(w *world) {
		w.holds["c"] = []nix.NARHash{hash(1)}
		w.dht[routing.ContentKey(hash(1))] = []peer.ID{"c"}
		w.f.Glance(hash(1), true)
		w.settle()
		w.wantTraffic(nil, 0)
		if got, _ := w.providers(hash(1), true); !slices.Equal(got, []peer.ID{"c"}) {
			w.t.Errorf("providers once it is wanted: %v", got)
		}
	})
	inWorld(t, func(w *world) {
		w.dht[routing.ContentKey(hash(1))] = []peer.ID{"c"}
		w.holds["c"] = []nix.NARHash{hash(1)}
		w.f.Glance(hash(1), true)
		w.settle()
		w.f.Expect(hash(1), true)
		w.settle()
		if !w.f.Known(hash(1)) {
			w.t.Error("not searched for once it was expected")
		}
	})
}
