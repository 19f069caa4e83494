package locate_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/locate"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is peers that answer after a round trip, and a DHT that takes longer.
type world struct {
	t        *testing.T // the bubble's
	f        *locate.Finder
	ledger   *locate.Ledger
	registry *prometheus.Registry
	// reach says how peers can be reached: on the LAN where it says nothing.
	reach map[peer.ID]locate.Reach

	mu sync.Mutex
	// holds and records say what each peer has; a peer without an entry in holds
	// never answers.
	holds   map[peer.ID][]nix.NARHash
	records map[peer.ID][]nix.HashPart
	// room is what a peer that has little of it does with a request.
	room map[peer.ID]func() *exchange.BusyError
	// dht is the DHT; nil as a value of Size 0.
	dht        map[cid.Cid][]peer.ID
	neighbours map[bool][]peer.ID
	asked      []question
	searched   []cid.Cid
	// hanging and walking count the requests to peers that do not answer and the
	// walks under way.
	hanging, walking atomic.Int32
}

// change changes what peers have while they may be asked.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// question is one have request.
type question struct {
	Peer  peer.ID
	Count int
}

const (
	roundTrip  = 20 * time.Millisecond
	searchTime = 400 * time.Millisecond
)

// receive counts a request and lets the round trip pass.
func (w *world) receive(ctx context.Context, p peer.ID, count int) error {
	w.mu.Lock()
	w.asked = append(w.asked, question{p, count})
	_, answers := w.holds[p]
	room := w.room[p]
	w.mu.Unlock()
	if !answers {
		w.hanging.Add(1)
		defer w.hanging.Add(-1)
		<-ctx.Done()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			w.ledger.Failed(p)
		}
		return ctx.Err()
	}
	time.Sleep(roundTrip)
	w.ledger.Answered(p, roundTrip)
	w.mu.Lock()
	defer w.mu.Unlock()
	if room != nil {
		if busy := room(); busy != nil {
			return busy
		}
	}
	return nil
}

func (w *world) Have(ctx context.Context, p peer.ID, hashes []nix.NARHash) ([]exchange.Holding, error) {
	if err := w.receive(ctx, p, len(hashes)); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	holdings := make([]exchange.Holding, len(hashes))
	for i, h := range hashes {
		holdings[i].Held = slices.Contains(w.holds[p], h)
	}
	return holdings, nil
}

func (w *world) Narinfos(ctx context.Context, p peer.ID, parts []nix.HashPart) ([]*narinfo.Info, error) {
	if err := w.receive(ctx, p, len(parts)); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	infos := make([]*narinfo.Info, len(parts))
	for i, part := range parts {
		if slices.Contains(w.records[p], part) {
			infos[i] = &narinfo.Info{URL: string(p)}
		}
	}
	return infos, nil
}

func (w *world) FindProviders(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		w.mu.Lock()
		w.searched = append(w.searched, key)
		providers := slices.Clone(w.dht[key])
		w.mu.Unlock()
		w.walking.Add(1)
		defer w.walking.Add(-1)
		for _, p := range append(providers, "") {
			select {
			case <-time.After(searchTime):
			case <-ctx.Done():
				return
			}
			if p == "" || !yield(peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/11.0.0.1/tcp/1")}}) {
				return
			}
		}
	}
}

func (w *world) Size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dht)
}

// inWorld runs a test in a bubble, with a Finder that runs.
func inWorld(t *testing.T, test func(w *world), changes ...func(*locate.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t:          t,
			ledger:     locate.NewLedger(),
			registry:   prometheus.NewRegistry(),
			reach:      make(map[peer.ID]locate.Reach),
			holds:      make(map[peer.ID][]nix.NARHash),
			records:    make(map[peer.ID][]nix.HashPart),
			room:       make(map[peer.ID]func() *exchange.BusyError),
			dht:        make(map[cid.Cid][]peer.ID),
			neighbours: make(map[bool][]peer.ID),
		}
		book, err := pstoremem.NewPeerstore()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []peer.ID{"a", "b", "c", "silent"} {
			book.AddAddr(p, ma.StringCast("/ip4/11.0.0.1/tcp/1"), time.Hour)
		}
		cfg := locate.Config{
			Client: w, Book: book, DHT: w, Ledger: w.ledger, Registerer: w.registry,
			Neighbours: func(strangers bool) []peer.ID {
				w.mu.Lock()
				defer w.mu.Unlock()
				return slices.Clone(w.neighbours[strangers])
			},
			Reach: func(p peer.ID) locate.Reach { return w.reach[p] },
		}
		for _, change := range changes {
			change(&cfg)
		}
		w.f = locate.New(cfg, zap.NewNop())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.f.Run(ctx) }()
		test(w)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		book.Close()
	})
}

// providers collects what Providers gives, and how long that took.
func (w *world) providers(h nix.NARHash, strangers bool) ([]peer.ID, time.Duration) {
	w.t.Helper()
	start := time.Now()
	var ids []peer.ID
	for info := range w.f.Providers(w.t.Context(), h, strangers) {
		ids = append(ids, info.ID)
	}
	return ids, time.Since(start)
}

// traffic returns what was asked since the last call, in the order of peers.
func (w *world) traffic() (asked []question, searched int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked, searched = w.asked, len(w.searched)
	w.asked, w.searched = nil, nil
	slices.SortFunc(asked, func(a, b question) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Count, b.Count))
	})
	return asked, searched
}

func (w *world) wantTraffic(asked []question, searched int) {
	w.t.Helper()
	gotAsked, gotSearched := w.traffic()
	if diff := gocmp.Diff(asked, gotAsked); diff != "" || gotSearched != searched {
		w.t.Errorf("%d searches, want %d; questions: (-want +got)\n%s", gotSearched, searched, diff)
	}
}

// counted sums up those series of a counter that have these values of labels, or
// the sum of a histogram.
func counted(t *testing.T, registry *prometheus.Registry, name string, labels ...string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			counts := f.GetName() == name
			for _, l := range m.GetLabel() {
				counts = counts && (len(labels) == 0 || slices.Contains(labels, l.GetValue()))
			}
			if counts {
				sum += m.GetCounter().GetValue() + m.GetHistogram().GetSampleSum()
			}
		}
	}
	return sum
}

// settle lets everything happen that can within a moment.
func (w *world) settle() {
	time.Sleep(5 * time.Second)
	synctest.Wait()
}

func hash(i int) nix.NARHash { return nix.NARHash{byte(i), byte(i >> 8)} }

func TestNeighboursAreAskedBeforeTheDHT(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.neighbours[true] = []peer.ID{"a", "b"}
		w.holds = map[peer.ID][]nix.NARHash{"a": {hash(1)}, "b": nil, "c": {hash(1)}}
		w.dht = map[cid.Cid][]peer.ID{routing.ContentKey(hash(1)): {"c", "b"}}

		w.f.Expect(hash(1), true)
		w.settle()
		if !w.f.Known(hash(1)) || w.f.Known(hash(2)) {
			t.Error("Known is wrong")
		}
		w.wantTraffic([]question{{"a", 1}, {"b", 1}}, 0)

		// Whoever reads on gets more: from the DHT, but without those that say no.
		got, took := w.providers(hash(1), true)
		if diff := gocmp.Diff([]peer.ID{"a", "c"}, got); diff != "" {
			t.Errorf("providers: (-want +got)\n%s", diff)
		}
		if took > 4*time.Second {
			t.Errorf("took %v", took)
		}
		w.wantTraffic([]question{{"c", 1}}, 1)
		// Everything is remembered.
		if _, took := w.providers(hash(1), true); took != 0 {
			t.Errorf("the second time took %v", took)
		}
		w.wantTraffic(nil, 0)
	})
}

func TestClosureOfOneProviderCostsFewSearches(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		const paths = 500
		for i := range paths {
			w.holds["c"] = append(w.holds["c"], hash(i))
			w.dht[routing.ContentKey(hash(i))] = []peer.ID{"c"}
		}
		for i := range paths {
			w.f.Expect(hash(i), true)
		}
		w.settle()
		for i := range paths {
			if !w.f.Known(hash(i)) {
				t.Fatalf("no holder of path %d is known", i)
			}
		}
		asked, searched := w.traffic()
		if searched > 10 || len(asked) > 10 {
			t.Errorf("%d paths took %d searches and %d requests", paths, searched, len(asked))
		}
		// And who has helped is asked first.
		w.holds["c"] = append(w.holds["c"], hash(paths))
		w.f.Expect(hash(paths), true)
		w.settle()
		w.wantTraffic([]question{{"c", 1}}, 0)
	})
}

func TestWithoutStrangersOnlyTheAllowedAreAsked(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.neighbours[true] = []peer.ID{"a", "b"}
		w.neighbours[false] = []peer.ID{"b"}
		w.holds = map[peer.ID][]nix.NARHash{"a": {hash(1), hash(2)}, "b": {hash(1)}}
		w.dht = map[cid.Cid][]peer.ID{routing.ContentKey(hash(2)): {"a"}}
		got, _ := w.providers(hash(1), false)
		if diff := gocmp.Diff([]peer.ID{"b"}, got); diff != "" {
			t.Errorf("providers: (-want +got)\n%s", diff)
		}
		if got, _ := w.providers(hash(2), false); got != nil {
			t.Errorf("providers: %v, want none", got)
		}
		// A stranger that appears meanwhile is not asked either.
		w.holds["b"] = nil
		delete(w.holds, "b") // Never answers: the entry stays open.
		w.traffic()
		w.f.Expect(hash(3), false)
		time.Sleep(time.Millisecond)
		w.f.Neighbour("a")
		w.settle()
		w.wantTraffic([]question{{"b", 1}}, 0)
	})
}

// A peer behind a NAT that has connected to this node has told no address that
// this node could dial, and needs none.
func TestHoldersWithoutAnAddressAreConnected(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.neighbours[true] = []peer.ID{"behind a NAT"}
		w.holds["behind a NAT"] = []nix.NARHash{hash(1)}
		got, _ := w.providers(hash(1), true)
		if diff := gocmp.Diff([]peer.ID{"behind a NAT"}, got); diff != "" {
			t.Errorf("providers: (-want +got)\n%s", diff)
		}
	})
}

// An office has 50 nodes on one network, and only one of them holds the NAR.
func TestWholeOfficeIsAsked(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		for i := range 49 {
			p := peer.ID(fmt.Sprintf("desk %d", i))
			w.neighbours[true] = append(w.neighbours[true], p)
			w.holds[p] = nil
		}
		w.holds["desk 48"] = []nix.NARHash{hash(1)}
		got, _ := w.providers(hash(1), true)
		if diff := gocmp.Diff([]peer.ID{"desk 48"}, got); diff != "" {
			t.Errorf("providers: (-want +got)\n%s", diff)
		}
	})
}

func TestSilentPeersDoNotHoldUp(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.neighbours[true] = []peer.ID{"silent"}
		w.holds["c"] = []nix.NARHash{hash(1)}
		w.dht = map[cid.Cid][]peer.ID{routing.ContentKey(hash(1)): {"c"}}
		start := time.Now()
		for info := range w.f.Providers(t.Context(), hash(1), true) {
			if info.ID != "c" || time.Since(start) > time.Second {
				t.Errorf("found %v after %v", info.ID, time.Since(start))
			}
			break
		}
		// With two requests waiting, it is left out.
		for i := range 20 {
			w.f.Expect(hash(100+i), true)
			time.Sleep(50 * time.Millisecond)
		}
		asked, _ := w.traffic()
		silent := slices.DeleteFunc(asked, func(q question) bool { return q.Peer != "silent" })
		if len(silent) > 2 {
			t.Errorf("a silent peer was asked %d times within a second", len(silent))
		}
	})
}

func TestAnswersAreForgottenInTime(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.neighbours[true] = []peer.ID{"a"}
		w.holds = map[peer.ID][]nix.NARHash{"a": {hash(1)}}
		w.dht = map[cid.Cid][]peer.ID{routing.ContentKey(hash(9)): nil} // not offline
		look := func(h nix.NARHash, after time.Duration) (asked int) {
			time.Sleep(after)
			w.traffic()
			w.f.Expect(h, true)
			w.settle()
			questions, _ := w.traffic()
			return len(questions)
		}
		for _, step := range []struct {
			name  string
			hash  nix.NARHash
			after time.Duration
			asked int
		}{
			{"held", hash(1), 0, 1},
			{"held, nine minutes later", hash(1), 9 * time.Minute, 0},
			{"held, eleven minutes later", hash(1), 2 * time.Minute, 1},
			{"absent", hash(2), 0, 1},
			{"absent, half a minute later", hash(2), 30 * time.Second, 0},
			{"absent, more than a minute later", hash(2), 30 * time.Second, 1},
		} {
			if got := look(step.hash, step.after); got != step.asked {
				t.Errorf("%s: %d requests, want %d", step.name, got, step.asked)
			}
		}
		// A new neighbour may hold what nobody did.
		w.neighbours[true] = []peer.ID{"a", "b"}
		w.holds["b"] = []nix.NARHash{hash(2)}
		w.f.Neighbour("b")
		synctest.Wait()
		if got := look(hash(2), 0); got != 2 || !w.f.Known(hash(2)) {
			t.Errorf("after a neighbour has appeared: %d requests, known %v", got, w.f.Known(hash(2)))
		}
		// What turned out false is not believed again, but not for ever.
		w.f.Forget(hash(2), "b")
		if got := look(hash(2), 0); got != 0 || w.f.Known(hash(2)) {
			t.Errorf("after Forget: %d requests, known %v", got, w.f.Known(hash(2)))
		}
		if got := look(hash(2), 2*time.Minute); got != 2 || !w.f.Known(hash(2)) {
			t.Errorf("two minutes after Forget: %d requests, known %v", got, w.f.Known(hash(2)))
		}
	})
}

func TestNotFoundOfflineIsSoonTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.dht = nil
		w.f.Expect(hash(1), true)
		w.settle()
		w.dht = map[cid.Cid][]peer.ID{routing.ContentKey(hash(1)): {"c"}}
		w.holds["c"] = []nix.NARHash{hash(1)}
		time.Sleep(5 * time.Second)
		w.f.Expect(hash(1), true)
		w.settle()
		if !w.f.Known(hash(1)) {
			t.Error("not found although the DHT is back")
		}
	})
}

func TestProvidersShareOneLookup(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.holds["c"] = []nix.NARHash{hash(1)}
		w.dht = map[cid.Cid][]peer.ID{routing.ContentKey(hash(1)): {"c"}}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if got, _ := w.providers(hash(1), true); !slices.Equal(got, []peer.ID{"c"}) {
					t.Errorf("providers: %v", got)
				}
			})
		}
		// One that gives up does not end it for the others.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		for info := range w.f.Providers(ctx, hash(1), true) {
			t.Errorf("found %v in no time", info.ID)
		}
		wg.Wait()
		w.wantTraffic([]question{{"c", 1}}, 1)
	})
}

func TestFloodIsBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		w.neighbours[true] = []peer.ID{"silent"}
		for i := range 100_000 {
			w.f.Expect(nix.NARHash{byte(i), byte(i >> 8), byte(i >> 16)}, true)
		}
		w.settle()
		asked, _ := w.traffic()
		if len(asked) > 2 {
			t.Errorf("%d requests", len(asked))
		}
	})
}
