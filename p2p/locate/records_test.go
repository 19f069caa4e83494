package locate_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// deadline is how long a substituter looks for one narinfo.
const deadline = 5 * time.Second

func part(i int) nix.HashPart { return nix.HashPart{byte(i), byte(i >> 8)} }

func parts(from, to int) []nix.HashPart {
	all := make([]nix.HashPart, 0, to-from)
	for i := from; i < to; i++ {
		all = append(all, part(i))
	}
	return all
}

// from returns which peer gives the first record, and how long that took.
func (w *world) from(p nix.HashPart, strangers bool) (string, time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), deadline)
	defer cancel()
	start := time.Now()
	for info := range w.f.Narinfos(ctx, p, strangers) {
		return info.URL, time.Since(start)
	}
	return "", time.Since(start)
}

// fromEach asks for records at once, as Nix does, and returns how long the
// slowest took.
func (w *world) fromEach(want string, parts ...nix.HashPart) time.Duration {
	w.t.Helper()
	start := time.Now()
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() {
			if got, _ := w.from(p, true); got != want {
				w.t.Errorf("record of %v comes from %q, want %q", p, got, want)
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// wantRequests checks that this many things were asked for in at most so many
// requests.
func (w *world) wantRequests(things, requests, walks int) {
	w.t.Helper()
	asked, searched := w.traffic()
	sum := 0
	for _, q := range asked {
		sum += q.Count
	}
	if sum != things || len(asked) > requests || searched > walks {
		w.t.Errorf("%d asked for in %d requests and %d walks, want %d, at most %d and %d", sum, len(asked), searched, things, requests, walks)
	}
}

func TestRecordsAskedAtOnceGoTogether(t *testing.T) {
	inWorld(t, func(w *world) {
		w.neighbours[true] = []peer.ID{"a"}
		w.holds["a"], w.records["a"] = nil, parts(0, 1000)
		// Nothing is known of the peer's round trip: the first goes at once.
		w.fromEach("a", parts(0, 25)...)
		w.wantRequests(25, 2, 0)
		// The next level of the closure waits a moment for company.
		if took := w.fromEach("a", parts(25, 50)...); took > roundTrip+5*time.Millisecond {
			w.t.Errorf("took %v, want one round trip", took)
		}
		w.wantRequests(25, 1, 0)
		// What comes while a request is under way waits for its end, as many as
		// one request takes.
		var wg sync.WaitGroup
		wg.Go(func() { w.from(part(50), true) })
		time.Sleep(roundTrip / 2)
		w.fromEach("a", parts(51, 400)...)
		wg.Wait()
		w.wantRequests(350, 3, 0)
	})
}

func TestWhoHasHelpedIsAskedFirst(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 20 {
			p := peer.ID(fmt.Sprintf("desk %02d", i))
			w.neighbours[true] = append(w.neighbours[true], p)
			w.holds[p] = nil
		}
		w.records["desk 07"] = parts(0, 2)
		w.records["desk 08"] = parts(2, 3)
		w.fromEach("desk 07", part(0))
		if asked, _ := w.traffic(); len(asked) != 20 {
			w.t.Errorf("%d requests, want one to each of 20", len(asked))
		}
		w.fromEach("desk 07", part(1))
		w.wantTraffic([]question{{"desk 07", 1}}, 0)
		// What it does not have the others are asked for, and it is not again.
		w.fromEach("desk 08", part(2))
		if asked, searched := w.traffic(); len(asked) != 20 || searched != 0 {
			w.t.Errorf("%d requests and %d walks, want 20 and none", len(asked), searched)
		}
	})
}

// Whoever a walk finds for the root of a closure has the rest too.
func TestClosureOfRecordsCostsOneWalk(t *testing.T) {
	inWorld(t, func(w *world) {
		w.holds["c"], w.records["c"] = nil, parts(0, 200)
		w.dht[routing.MetadataKey(part(0))] = []peer.ID{"c"}
		w.fromEach("c", part(0))
		for at := 1; at < 200; at += 25 {
			w.fromEach("c", parts(at, min(at+25, 200))...)
		}
		w.wantRequests(200, 9, 1)
	})
}

// Records asked for before anybody was found are asked of whoever one of the
// walks finds.
func TestWalkForOneHelpsAll(t *testing.T) {
	inWorld(t, func(w *world) {
		w.holds["c"], w.records["c"] = nil, parts(0, 25)
		w.dht[routing.MetadataKey(part(3))] = []peer.ID{"c"}
		if took := w.fromEach("c", parts(0, 25)...); took > 3*time.Second {
			w.t.Errorf("took %v", took)
		}
		w.traffic()
		// Where nobody has anything, nobody waits for long.
		start := time.Now()
		w.fromEach("", parts(100, 125)...)
		if took := time.Since(start); took > 4*time.Second {
			w.t.Errorf("took %v for nothing", took)
		}
	})
}

func TestRefusalsAreRememberedForAMoment(t *testing.T) {
	inWorld(t, func(w *world) {
		w.neighbours[true] = []peer.ID{"a"}
		w.holds["a"] = nil
		w.dht[routing.MetadataKey(part(1))] = []peer.ID{"a"}
		if got, took := w.from(part(1), true); got != "" || took > time.Second {
			w.t.Errorf("got a record of %q after %v, want none", got, took)
		}
		w.wantTraffic([]question{{"a", 1}}, 1)
		if got, took := w.from(part(1), true); got != "" || took != 0 {
			w.t.Errorf("the second time: got a record of %q after %v, want none at once", got, took)
		}
		w.wantTraffic(nil, 0)
		// It may have been built meanwhile.
		w.change(func() { w.records["a"] = parts(1, 2) })
		time.Sleep(10 * time.Second)
		w.fromEach("a", part(1))
		w.wantTraffic([]question{{"a", 1}}, 0)
	})
}

func TestStrangersGetNoQuestionForRecordsTheyMustNotHearOf(t *testing.T) {
	inWorld(t, func(w *world) {
		w.neighbours[true] = []peer.ID{"a", "b"}
		w.neighbours[false] = []peer.ID{"b"}
		w.holds["a"], w.holds["b"] = nil, nil
		w.records["a"] = parts(0, 10)
		w.fromEach("a", part(0)) // Now it has helped.
		w.traffic()
		if got, _ := w.from(part(1), false); got != "" {
			w.t.Errorf("got a record of %q", got)
		}
		w.wantTraffic([]question{{"b", 1}}, 0)
	})
}

func TestBusyPeersAreAskedAgainInTime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.neighbours[true] = []peer.ID{"a"}
		w.holds["a"], w.records["a"] = nil, parts(0, 100)
		refusals := 1
		w.room["a"] = func() *exchange.BusyError {
			if refusals--; refusals < 0 {
				return nil
			}
			return &exchange.BusyError{RetryAfter: 2 * time.Second}
		}
		if took := w.fromEach("a", parts(0, 10)...); took < 2*time.Second || took > 3*time.Second {
			w.t.Errorf("took %v, want little more than the two seconds that the peer wanted", took)
		}
		if asked, _ := w.traffic(); len(asked) != 2 || asked[1].Count != 10 {
			w.t.Errorf("questions: %v, want two, the second for all 10", asked)
		}
		// Meanwhile others are looked for.
		w.change(func() {
			refusals = 1
			w.holds["c"], w.records["c"] = nil, parts(10, 11)
			w.dht[routing.MetadataKey(part(10))] = []peer.ID{"c"}
		})
		if took := w.fromEach("c", part(10)); took > time.Second {
			w.t.Errorf("took %v although another had it", took)
		}
		// A peer that is busy for longer than anyone waits is not waited for.
		w.change(func() {
			w.room["a"] = func() *exchange.BusyError { return &exchange.BusyError{RetryAfter: time.Minute} }
		})
		if got, took := w.from(part(20), true); got != "" || took > 3*time.Second {
			w.t.Errorf("got a record of %q after %v, want none and no wait", got, took)
		}
	})
}

func TestPeerThatGivesNothingIsNotAskedWithoutPause(t *testing.T) {
	inWorld(t, func(w *world) {
		w.neighbours[true] = []peer.ID{"a"}
		w.holds["a"] = nil
		w.room["a"] = func() *exchange.BusyError { return &exchange.BusyError{} }
		w.from(part(0), true)
		if asked, _ := w.traffic(); len(asked) > 50 {
			w.t.Errorf("%d requests within %v", len(asked), deadline)
		}
	})
}

func TestWhoGoesAwayCostsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.neighbours[true] = []peer.ID{"silent"}
		ask := func(p nix.HashPart, patience time.Duration) {
			ctx, cancel := context.WithTimeout(w.t.Context(), patience)
			defer cancel()
			for range w.f.Narinfos(ctx, p, true) {
				w.t.Error("got a record")
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { ask(part(0), 100*time.Millisecond) })
		wg.Go(func() { ask(part(1), 200*time.Millisecond) })
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		if w.hanging.Load() != 1 {
			w.t.Errorf("%d requests while one waits, want one", w.hanging.Load())
		}
		wg.Wait()
		synctest.Wait()
		if w.hanging.Load() != 0 || w.walking.Load() != 0 {
			w.t.Errorf("%d requests and %d walks for nobody", w.hanging.Load(), w.walking.Load())
		}
		// That nobody waited is not the peer's fault.
		if w.ledger.Dead("silent") {
			w.t.Error("the peer is taken for dead")
		}
	})
}

func TestSilentPeerIsLeftOutAfterItsTimeout(t *testing.T) {
	inWorld(t, func(w *world) {
		w.neighbours[true] = []peer.ID{"silent", "b"}
		w.holds["b"], w.records["b"] = nil, parts(0, 10)
		for info := range w.f.Narinfos(w.t.Context(), part(0), true) { // All answers.
			if info.URL != "b" {
				w.t.Errorf("got a record of %q", info.URL)
			}
		}
		w.traffic()
		for range w.f.Narinfos(w.t.Context(), part(1), true) {
			continue
		}
		asked, _ := w.traffic()
		if slices.ContainsFunc(asked, func(q question) bool { return q.Peer == "silent" }) {
			w.t.Error("a peer that has just not answered was asked again")
		}
		// It is back.
		w.f.Neighbour("silent")
		for range w.f.Narinfos(w.t.Context(), part(2), true) {
			continue
		}
		asked, _ = w.traffic()
		if !slices.ContainsFunc(asked, func(q question) bool { return q.Peer == "silent" }) {
			w.t.Error("a peer that is there again was not asked")
		}
	})
}

func TestRecordsOfAllAreHandedOn(t *testing.T) {
	inWorld(t, func(w *world) {
		w.neighbours[true] = []peer.ID{"a", "b"}
		for _, p := range []peer.ID{"a", "b", "c"} {
			w.holds[p], w.records[p] = nil, parts(0, 1)
		}
		w.dht = map[cid.Cid][]peer.ID{routing.MetadataKey(part(0)): {"c", "a"}}
		var got []string
		for info := range w.f.Narinfos(w.t.Context(), part(0), true) {
			got = append(got, info.URL)
		}
		slices.Sort(got)
		if diff := gocmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
			w.t.Errorf("records: (-want +got)\n%s", diff)
		}
	})
}
