package substituter_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/substituter"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// gathered returns the metrics of this family by the values of their labels.
func gathered(t *testing.T, registry *prometheus.Registry, family string) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			got[strings.Join(labels, " ")] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}

// fetched asks for the NAR and returns how that went, which must be well.
func (b *bubble) fetched(p *path) (*explain.Fetch, time.Duration) {
	b.t.Helper()
	b.ask(p.narinfoURL())
	resp, took := b.ask(p.narURL())
	if resp.Code != http.StatusOK || !bytes.Equal(resp.Body.Bytes(), p.nar) {
		b.t.Fatalf("%s: %d, %d bytes", p.info.StorePath.Name(), resp.Code, resp.Body.Len())
	}
	time.Sleep(time.Minute) // whatever was cancelled ends
	return b.explain(p).Fetch, took
}

// why is why each source has started, and how that ended.
func why(f *explain.Fetch) string {
	var texts []string
	for _, s := range f.Sources {
		for _, a := range s.Attempts {
			texts = append(texts, fmt.Sprintf("%s: %s, %s", s.Kind, a.Why, a.End))
		}
	}
	return strings.Join(texts, "; ")
}

// Who starts, who joins and when, and who is given up, for a NAR of 32 MiB.
func TestHedge(t *testing.T) {
	const size, mega = 32 << 20, 1 << 20
	estimate := func(firstByte time.Duration, rate float64) substituter.Estimate {
		return substituter.Estimate{Providers: 1, FirstByte: firstByte, Rate: rate}
	}
	for _, tt := range []struct {
		name string
		// pause of the upstream between pieces of 256 KiB.
		pause   time.Duration
		peers   *holding
		later   *holding // what is known after a second
		atMost  time.Duration
		atLeast time.Duration
		order   string
		want    string
		wasted  string // "some", "none", or "" for any
	}{
		{
			name: "peers alone", peers: &holding{known: true, earned: true, rate: 16 * mega},
			atLeast: 2 * time.Second, atMost: 2100 * time.Millisecond,
			order: explain.HolderKnown, want: "peer: at once, complete", wasted: "none",
		},
		{
			name:  "silent peers, after their usual time",
			peers: &holding{silent: true, earned: true, estimate: estimate(300*time.Millisecond, mega)}, pause: time.Millisecond,
			atLeast: 300 * time.Millisecond, atMost: 600 * time.Millisecond,
			order: explain.HolderKnown, want: "peer: at once, late; upstream: silent, complete",
		},
		{
			name: "peers that fall silent", peers: &holding{known: true, earned: true, stall: size / 2}, pause: time.Millisecond,
			atLeast: time.Second, atMost: 1500 * time.Millisecond,
			order: explain.HolderKnown, want: "peer: at once, slow; upstream: silent, complete",
		},
		{
			name: "peers that are found to be slow", pause: time.Millisecond,
			peers:  &holding{earned: true, rate: mega / 2, known: true},
			atMost: 12 * time.Second, atLeast: 0,
			order: explain.HolderKnown, want: "peer: at once, slow; upstream: slow, complete", wasted: "some",
		},
		{
			name:  "peers found later, and faster",
			later: &holding{earned: true, rate: 32 * mega, estimate: estimate(50*time.Millisecond, 32*mega)}, pause: 100 * time.Millisecond,
			atMost: 2500 * time.Millisecond, atLeast: 1500 * time.Millisecond,
			order: explain.NoHolderKnown, want: "upstream: at once, slow; peer: faster, complete",
		},
		{
			name:  "peers found later, and no faster",
			later: &holding{earned: true, rate: mega, estimate: estimate(50*time.Millisecond, mega)}, pause: 100 * time.Millisecond,
			atMost: 13 * time.Second, atLeast: 12 * time.Second,
			order: explain.NoHolderKnown, want: "upstream: at once, complete",
		},
		{
			name: "estimates that were wrong", peers: &holding{earned: true, rate: 8 * mega, known: true}, pause: 10 * time.Millisecond,
			later:  &holding{earned: true, rate: 1, estimate: estimate(50*time.Millisecond, 1000*mega)},
			atMost: 5 * time.Second,
			order:  explain.HolderKnown, want: "peer: at once, complete",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				b.deps.Fetches = newBucket()
				registry := prometheus.NewRegistry()
				b.deps.Metrics = registry
				a := b.far("a", upstream.Config{})
				p := b.path("p", size)
				a.add(p)
				a.fail(paced(a.cache, tt.pause))
				b.start()
				hold := func(h *holding) {
					if h != nil {
						held := *h
						held.nar = p.nar
						b.peers.hold(p.info.NARHash, held)
					}
				}
				hold(tt.peers)
				time.AfterFunc(time.Second, func() { hold(tt.later) })
				fetch, took := b.fetched(p)
				if took < tt.atLeast || took > tt.atMost {
					t.Errorf("took %v, want %v to %v", took, tt.atLeast, tt.atMost)
				}
				if got := why(fetch); got != tt.want || fetch.Order != tt.order {
					t.Errorf("%s: %s\nwant %s: %s", fetch.Order, got, tt.order, tt.want)
				}
				joined := 0.0
				for _, n := range gathered(t, registry, "nar_p2p_plan_joins_total") {
					joined += n
				}
				if want := strings.Count(tt.want, "; "); joined != float64(want) {
					t.Errorf("%v have joined, want %d", joined, want)
				}
				wasted := 0.0
				for _, n := range gathered(t, registry, "nar_p2p_plan_wasted_bytes_total") {
					wasted += n
				}
				if tt.wasted != "" && (wasted > 0) != (tt.wasted == "some") {
					t.Errorf("%v bytes in vain, want %s", wasted, tt.wasted)
				}
			})
		})
	}
}

// A neighbour starts, since it is expected to be quick; if it is not, an upstream
// that is known to be joins.
func TestSlowNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 32 << 20
		b := newBubble(t)
		a := b.far("a", upstream.Config{})
		a.fail(paced(a.cache, 25*time.Millisecond)) // 10 MiB/s
		first, second := b.path("first", size), b.path("second", size)
		a.add(first)
		a.add(second)
		b.peers.hold(second.info.NARHash, holding{
			nar: second.nar, earned: true, rate: 1 << 20, estimate: substituter.Estimate{Providers: 1, LAN: true},
		})
		b.start()
		b.fetched(first)
		fetch, took := b.fetched(second)
		if want := "peer: at once, slow; upstream: faster, complete"; why(fetch) != want || fetch.Order != explain.HolderKnown {
			t.Errorf("%s: %s", fetch.Order, why(fetch))
		}
		if took > 4500*time.Millisecond { // the upstream alone takes 3.2 s
			t.Errorf("took %v", took)
		}
	})
}

// A healthy upstream brings a small NAR in less time than a search for peers
// takes: the search is called off.
func TestSmallNARsAreNotSearchedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		registry := prometheus.NewRegistry()
		b.deps.Metrics = registry
		a := b.far("a", upstream.Config{})
		a.slow(20 * time.Millisecond)
		first, second := b.path("first", small), b.path("second", small)
		a.add(first)
		a.add(second)
		b.start()
		b.fetched(first)
		fetch, _ := b.fetched(second)
		if fetch.Order != explain.NotWorthSearch {
			t.Errorf("order: %s", fetch.Order)
		}
		if _, expected := b.peers.expected[second.info.NARHash]; expected || !slices.Contains(b.peers.glanced, second.info.NARHash) {
			t.Errorf("it was searched for ahead of need: %t, and glanced at: %v", expected, b.peers.glanced)
		}
		if x := fetch.Sources[0].Expected; x == nil || x.FirstByteSeconds != 0.02 {
			t.Errorf("expected of the upstream: %+v", x)
		}
		if told := b.explain(second).Plan; told == nil || told.Order != explain.NotWorthSearch || len(told.Sources) != 2 ||
			told.Sources[0].Kind != explain.FromUpstream || told.Sources[1].AfterSeconds != 2 {
			t.Errorf("plan: %+v", told)
		}
		if got := gathered(t, registry, "nar_p2p_plan_decisions_total"); got["upstream not-worth-search"] != 2 {
			t.Errorf("decisions: %v", got)
		}
		// But where the upstream fails them peers are asked all the same.
		third := b.path("third", small)
		a.add(third)
		a.remove(third.info.URL)
		b.peers.hold(third.info.NARHash, holding{nar: third.nar})
		b.fetched(third)
	})
}

// NARs that hang although narinfos are answered cost one request its time, and
// not every one.
func TestHangingNARsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		b.deps.Peers = nil
		a := b.far("a", upstream.Config{})
		paths := b.paths("p", "q", "r", "s")
		for _, p := range paths {
			a.add(p)
		}
		b.start()
		works := func(w http.ResponseWriter, r *http.Request) {
			a.mu.Lock()
			file := a.files[strings.TrimPrefix(r.URL.Path, "/")]
			a.mu.Unlock()
			_, _ = w.Write(file)
		}
		a.fail(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/nar/") {
				hang(w, r)
			}
			works(w, r)
		})
		for i, want := range []time.Duration{10 * time.Second, 0, 2 * time.Second, 0} {
			p := paths[i]
			b.want(p, http.StatusOK, 0)
			for range 100 * min(1, i%2) { // each has its client before it fails
				b.ask(p.narURL())
			}
			if resp, took := b.ask(p.narURL()); resp.Code != http.StatusNotFound || took != want {
				t.Errorf("%s: %d after %v, want 404 after %v", p.info.StorePath.Name(), resp.Code, took, want)
			}
			if i == 1 {
				time.Sleep(10 * time.Second) // until the next trial
			}
		}
		if got := b.server.Stats().Upstreams[0]; got.State != "narinfos only" || !got.Reachable {
			t.Errorf("%+v", got)
		}
		b.start() // and a restart does not forget it
		if resp, took := b.ask(paths[0].narURL()); resp.Code != http.StatusNotFound || took != 0 {
			t.Errorf("after a restart: %d after %v", resp.Code, took)
		}
		a.fail(works)
		time.Sleep(time.Minute)
		if resp, took := b.ask(paths[0].narURL()); resp.Code != http.StatusOK || took != 0 {
			t.Errorf("when they come again: %d after %v", resp.Code, took)
		}
		if got := b.server.Stats().Upstreams[0]; got.State != "ok" {
			t.Errorf("%+v", got)
		}
	})
}

// An upstream that gives wrong bytes is left out, and not the others with it.
func TestOneUpstreamIsWrong(t *testing.T) {
	for _, size := range []int{small, large} {
		l := newLab(t)
		second := newCache(t)
		l.cfg.Upstreams = append(l.cfg.Upstreams, upstream.Config{URL: second.url})
		p := l.path(fmt.Sprint("p", size), size)
		damaged := &path{p.info, p.flipped()}
		l.cache.add(damaged)
		second.add(p)
		l.start()
		l.get(p.narinfoURL(), http.StatusOK)
		if size == small {
			l.getNAR(p) // within the same request
		} else if _, body, err := l.do(http.MethodGet, p.narURL()); err == nil {
			t.Fatalf("%d bytes, which are wrong", len(body))
		}
		l.getNAR(p)
		if n := l.cache.requests(p.info.URL); n != 1 {
			t.Errorf("%d bytes: the damaged one was asked %d times", size, n)
		}
		told := l.explain(p)
		says(t, told, "Would be served from "+second.url, "the NAR is not taken from "+l.cache.url)
	}
}
