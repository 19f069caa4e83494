package substituter_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// chain makes paths of which each refers to the next one and to itself.
func (l *lab) chain(names ...string) []*path {
	paths := make([]*path, len(names))
	for i, name := range slices.Backward(names) {
		paths[i] = l.path(name, 10)
		refers := []*path{paths[i]}
		if i+1 < len(names) {
			refers = append(refers, paths[i+1])
		}
		l.refer(paths[i], refers...)
	}
	return paths
}

// peersAsked returns the names of the paths that peers were asked for, sorted.
func (l *lab) peersAsked(paths []*path) (names []string) {
	l.peers.mu.Lock()
	defer l.peers.mu.Unlock()
	for _, part := range l.peers.asked {
		for _, p := range paths {
			if p.part() == part {
				names = append(names, p.info.StorePath.Name())
			}
		}
	}
	slices.Sort(names)
	return names
}

func prefetches(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	events := map[string]float64{}
	for name, n := range counted(t, registry) {
		if event, ok := strings.CutPrefix(name, "nar_p2p_narinfo_prefetch_total{event="); ok {
			events[strings.TrimSuffix(event, "}")] = n
		}
	}
	return events
}

// One step ahead at first, and to the end once Nix follows.
func TestLooksAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, get := offline(t)
		registry := prometheus.NewPedanticRegistry()
		l.deps.Metrics = registry
		paths := l.chain("a", "b", "c", "d")
		for _, p := range paths {
			l.peers.add(fromPeer(p))
		}
		for i, want := range [][]string{{"a", "b"}, {"a", "b"}, {"a", "b", "c", "d"}, {"a", "b", "c", "d"}} {
			get(paths[max(i-1, 0)].narinfoURL()) // the first one twice
			time.Sleep(10 * time.Second)
			if diff := cmp.Diff(want, l.peersAsked(paths)); diff != "" {
				t.Errorf("asked for after request %d (-want +got):\n%s", i, diff)
			}
		}
		if len(l.peers.expected) != 3 {
			t.Errorf("%d NARs are expected, want those of the 3 records that Nix asked for", len(l.peers.expected))
		}
		want := map[string]float64{"started": 3, "used": 2}
		if diff := cmp.Diff(want, prefetches(t, registry)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		time.Sleep(2 * time.Minute)
		get(paths[0].narinfoURL())
		want["wasted"] = 1
		if diff := cmp.Diff(want, prefetches(t, registry)); diff != "" {
			t.Errorf("events, later (-want +got):\n%s", diff)
		}
	})
}

// However Nix walks, the upstream is asked once for each path.
func TestWalkThroughAClosure(t *testing.T) {
	l := newLab(t)
	l.deps.Peers = nil
	var all []*path
	for i := range 80 {
		p := l.path(fmt.Sprint(i), 10)
		for range 3 {
			if i > 0 {
				l.refer(p, all[(i*7+len(p.info.References)*5)%i])
			}
		}
		all = append(all, p)
	}
	root := l.refer(l.path("root", 10), all...)
	for _, p := range append(all, root) {
		l.refer(p) // signs it
		l.cache.add(p)
	}
	l.start()
	todo := make(chan nix.StorePath, 10_000)
	seen := map[nix.StorePath]bool{root.info.StorePath: true}
	todo <- root.info.StorePath
	var mu sync.Mutex
	var walking, walkers sync.WaitGroup
	walking.Add(1)
	for range 8 {
		walkers.Go(func() {
			for p := range todo {
				_, body := l.get("/"+p.HashPart().String()+".narinfo", http.StatusOK)
				info, err := narinfo.Parse(body)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				for _, ref := range info.References {
					if !seen[ref] {
						seen[ref] = true
						walking.Add(1)
						todo <- ref
					}
				}
				mu.Unlock()
				walking.Done()
			}
		})
	}
	walking.Wait()
	close(todo)
	walkers.Wait()
	for _, p := range append(all, root) {
		if n := l.cache.requests(p.narinfoURL()[1:]); n != 1 {
			t.Errorf("the upstream was asked %d times for %s, want once", n, p.info.StorePath.Name())
		}
	}
}

func TestNixTurnsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, get := offline(t)
		registry := prometheus.NewPedanticRegistry()
		l.deps.Metrics = registry
		var refs []*path
		for i := range 500 {
			p := l.path(fmt.Sprint(i), 10)
			l.peers.add(fromPeer(p))
			l.peers.slow[p.part()] = 400 * time.Millisecond
			refs = append(refs, p)
		}
		root := l.refer(l.path("root", 10), refs...)
		l.peers.add(fromPeer(root))
		get(root.narinfoURL())
		time.Sleep(10 * time.Second)
		// Those that began after 0, 0.4 and 0.8 s.
		if got := len(l.peersAsked(refs)); got != 3*96 {
			t.Errorf("%d references were looked up, want %d", got, 3*96)
		}
		want := map[string]float64{"started": 3 * 96, "dropped": 500 - 3*96}
		if diff := cmp.Diff(want, prefetches(t, registry)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		// It comes back.
		get(root.narinfoURL())
		time.Sleep(10 * time.Second)
		if got := len(l.peersAsked(refs)); got != 500 {
			t.Errorf("%d references were looked up in the end, want all 500", got)
		}
	})
}

// Nix that waits for an answer has not turned away.
func TestNixWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, get := offline(t)
		paths := l.chain("a", "b", "c", "d")
		slow := l.path("slow", 10)
		root := l.refer(l.path("root", 10), paths[0], slow)
		for _, p := range append(paths, root, slow) {
			l.peers.add(fromPeer(p))
			l.peers.slow[p.part()] = 1200 * time.Millisecond
		}
		l.peers.slow[slow.part()] = 4500 * time.Millisecond
		get(root.narinfoURL())
		get(slow.narinfoURL())
		if diff := cmp.Diff([]string{"a", "b", "c", "d"}, l.peersAsked(paths)); diff != "" {
			t.Errorf("asked for (-want +got):\n%s", diff)
		}
		begin := time.Now()
		get(paths[0].narinfoURL())
		if took := time.Since(begin); took > 0 {
			t.Errorf("what was looked up ahead took %v", took)
		}
	})
}

// A lookup that was begun ahead ends by its own deadline. Nix's request, which
// came later, does not end with it.
func TestLookupAheadThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, get := offline(t)
		paths := l.chain("a", "b")
		for _, p := range paths {
			l.peers.add(fromPeer(p))
		}
		l.peers.slow[paths[1].part()] = time.Hour
		get(paths[0].narinfoURL())
		time.Sleep(3 * time.Second)
		l.peers.mu.Lock()
		l.peers.slow[paths[1].part()] = 0
		l.peers.mu.Unlock()
		if status, _ := get(paths[1].narinfoURL()); status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	})
}

// What was looked up ahead in vain is looked up once more when Nix asks.
func TestLookupAheadInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, get := offline(t)
		paths := l.chain("a", "b")
		l.peers.add(fromPeer(paths[0]))
		get(paths[0].narinfoURL())
		synctest.Wait()
		get(paths[1].narinfoURL())
		if diff := cmp.Diff([]string{"a", "b", "b"}, l.peersAsked(paths)); diff != "" {
			t.Errorf("asked for (-want +got):\n%s", diff)
		}
	})
}

func TestWhatIsNotLookedUpAhead(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(l *lab, ref *path)
		method  string
		want    int // requests to the upstream for the reference
	}{
		{"nothing is special", func(*lab, *path) {}, http.MethodGet, 1},
		{"only its existence was asked for", func(*lab, *path) {}, http.MethodHead, 0},
		{"switched off", func(l *lab, _ *path) { l.cfg.NoPrefetch = true }, http.MethodGet, 0},
		{"it is to rest", func(l *lab, _ *path) { l.deps.Rests = func() bool { return true } }, http.MethodGet, 0},
		{"it is in the store", func(l *lab, ref *path) {
			unsigned := *ref
			unsigned.info.Signatures = nil
			l.deps.Store = store{map[nix.HashPart]*path{ref.part(): &unsigned}}
		}, http.MethodGet, 0},
		{"the store is silent", func(l *lab, ref *path) { l.deps.Store = silentStore{part: ref.part()} }, http.MethodGet, 0},
		{"it is known", func(l *lab, ref *path) {
			l.start()
			l.get(ref.narinfoURL(), http.StatusOK)
		}, http.MethodGet, 1},
		{"it is known to be absent", func(l *lab, ref *path) {
			l.cache.remove(ref.narinfoURL()[1:])
			l.start()
			l.get(ref.narinfoURL(), http.StatusNotFound)
		}, http.MethodGet, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			paths := l.chain("root", "ref")
			for _, p := range paths {
				l.cache.add(p)
			}
			tt.prepare(l, paths[1])
			if l.server == nil {
				l.start()
			}
			if resp, _, err := l.do(tt.method, paths[0].narinfoURL()); err != nil || resp.StatusCode != http.StatusOK {
				t.Fatal(resp, err)
			}
			if err := l.server.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := l.cache.requests(paths[1].narinfoURL()[1:]); got != tt.want {
				t.Errorf("%d requests to the upstream, want %d", got, tt.want)
			}
		})
	}
}

// silentStore is a store that says nothing about one path.
type silentStore struct {
	store
	part nix.HashPart
}

func (s silentStore) Info(ctx context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	if part == s.part {
		<-ctx.Done()
	}
	return s.store.Info(ctx, part)
}

// While a private upstream has not said that a path is not its own, strangers
// are not asked for it, ahead neither.
func TestLookingAheadTellsStrangersNoMore(t *testing.T) {
	for name, tt := range map[string]struct {
		private http.HandlerFunc // what it answers for the reference
		want    bool             // strangers are asked for the reference
	}{
		"the private upstream fails too": {reset, false},
		"it does not have the reference": {http.NotFound, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			paths := l.chain("root", "ref")
			private := newCache(t)
			l.cfg.Upstreams = append(l.cfg.Upstreams, upstream.Config{URL: private.url, Private: true})
			l.cache.fail(reset)
			private.fail(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != paths[0].narinfoURL() {
					tt.private(w, r)
					return
				}
				_, _ = w.Write(paths[0].info.Bytes())
			})
			l.start()
			l.get(paths[0].narinfoURL(), http.StatusOK)
			if err := l.server.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if asked := l.peersAsked(paths); !slices.Contains(asked, "ref") {
				t.Errorf("peers were asked for %v, want ref too", asked)
			}
			if narinfos, _, _ := l.peers.calls(); slices.Contains(narinfos, true) != tt.want {
				t.Errorf("peers were asked, strangers too: %v, want %v", narinfos, tt.want)
			}
		})
	}
}
