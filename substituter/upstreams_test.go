package substituter_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/substituter"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// The first narinfo of an outage waits as long as it takes to find out; all
// others are answered at once, by peers or by nobody.
func TestOutage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		outage func(*far)
		first  time.Duration // if peers have the record
		alone  time.Duration // if nobody has
		trial  time.Duration // what a later one may cost, if nobody has
	}{
		{"packets vanish", func(f *far) { f.vanish(true) }, 2 * time.Second, 2 * time.Second, 300 * time.Millisecond},
		{"accepts and is silent", func(f *far) { f.fail(hang) }, 2 * time.Second, 5 * time.Second, 300 * time.Millisecond},
		{"refuses", (*far).refuse, 0, 0, 0},
		{"resets", func(f *far) { f.fail(reset) }, 0, 0, 0},
		{"status 500", func(f *far) { f.fail(status(500)) }, 0, 0, 0},
		{"garbage", func(f *far) {
			f.fail(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
		}, 0, 0, 0},
		{"too many requests", func(f *far) { f.fail(status(429, "Retry-After", "60")) }, 0, 0, 0},
	} {
		t.Run(tt.name+", peers have it", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				f := b.far("a", upstream.Config{})
				b.start()
				tt.outage(f)
				for i := range 100 {
					p := b.path(fmt.Sprint(i), small)
					b.peers.add(fromPeer(p))
					b.want(p, http.StatusOK, map[bool]time.Duration{true: tt.first}[i == 0])
					time.Sleep(100 * time.Millisecond)
				}
			})
		})
		t.Run(tt.name+", nobody has it", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				f := b.far("a", upstream.Config{})
				b.start()
				tt.outage(f)
				b.want(b.path("first", small), http.StatusNotFound, tt.alone)
				for i := range 100 {
					if _, took := b.ask(b.path(fmt.Sprint(i), small).narinfoURL()); took > tt.trial {
						t.Errorf("number %d took %v, want at most %v", i, took, tt.trial)
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		})
	}
}

// An upstream that hangs costs what others are waited for, once; then nothing.
func TestSecondUpstreamCovers(t *testing.T) {
	for name, outage := range map[string]func(*far){
		"packets vanish":        func(f *far) { f.vanish(true) },
		"accepts and is silent": func(f *far) { f.fail(hang) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				a := b.far("a", upstream.Config{Priority: 1})
				c := b.far("c", upstream.Config{Priority: 2})
				outage(a)
				b.start()
				ps := b.paths("0", "1", "2", "3")
				for _, p := range ps {
					c.add(p)
				}
				b.want(ps[0], http.StatusOK, 300*time.Millisecond)
				b.want(ps[1], http.StatusOK, 300*time.Millisecond)
				time.Sleep(2 * time.Second)
				b.want(ps[2], http.StatusOK, 0)
				b.want(ps[3], http.StatusOK, 0)
			})
		})
	}
}

// An upstream that is slow costs its hedge delay where another has the path,
// and is not held for dead.
func TestSlowUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		a := b.far("a", upstream.Config{Priority: 1})
		c := b.far("c", upstream.Config{Priority: 2})
		a.slow(3 * time.Second)
		b.start()
		for i := range 20 {
			p := b.path(fmt.Sprint(i), small)
			c.add(p)
			took := 500 * time.Millisecond
			if i == 0 {
				took = 300 * time.Millisecond // nothing is known yet
			}
			b.want(p, http.StatusOK, took)
			time.Sleep(5 * time.Second)
		}
		if got := b.server.Stats().Upstreams[0]; got.State != "slow" || !got.Reachable {
			t.Errorf("%+v", got)
		}
	})
}

// Where there is no other upstream peers are asked in its place; later, once it
// is known to be slow.
func TestSlowUpstreamAndPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		b.far("a", upstream.Config{}).slow(3 * time.Second)
		b.start()
		for i := range 10 {
			p := b.path(fmt.Sprint(i), small)
			b.peers.add(fromPeer(p))
			took := 3 * time.Second
			if i == 0 {
				took = 2 * time.Second
			}
			b.want(p, http.StatusOK, took)
			time.Sleep(2 * time.Second) // more than until the first answer
		}
	})
}

// Where it is the only one it is waited for.
func TestOnlyUpstreamIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		a := b.far("a", upstream.Config{})
		a.slow(3 * time.Second)
		b.start()
		first := b.path("first", small)
		a.add(first)
		b.want(first, http.StatusOK, 3*time.Second)
		var clients sync.WaitGroup
		for i := range 20 { // no second of silence makes the others miss
			p := b.path(fmt.Sprint(i), small)
			a.add(p)
			clients.Go(func() { b.want(p, http.StatusOK, 3*time.Second) })
			time.Sleep(4400 * time.Millisecond / 20)
		}
		clients.Wait()
	})
}

// Nobody is asked without need, and a 404 is passed on at once.
func TestOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		var caches []*far
		for i := range 3 {
			f := b.far(fmt.Sprint(i), upstream.Config{Priority: i})
			f.slow(50 * time.Millisecond)
			caches = append(caches, f)
		}
		b.start()
		b.want(b.path("warm", small), http.StatusNotFound, 150*time.Millisecond)
		for i := range caches {
			p := b.path(fmt.Sprint("in ", i)[3:], small)
			for _, f := range caches[i:] {
				f.add(p)
			}
			for _, f := range caches {
				f.count()
			}
			b.want(p, http.StatusOK, time.Duration(i+1)*50*time.Millisecond)
			for j, f := range caches {
				want := 0
				if j <= i {
					want = 1
				}
				if got := f.count(); got != want {
					t.Errorf("only number %d and later have it: number %d was asked %d times, want %d", i, j, got, want)
				}
			}
		}
	})
}

// Within a priority the quicker is first, as soon as that is known.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		a := b.far("a", upstream.Config{Priority: 1})
		c := b.far("c", upstream.Config{Priority: 1})
		last := b.far("last", upstream.Config{Priority: 2})
		a.slow(90 * time.Millisecond)
		c.slow(20 * time.Millisecond)
		b.start()
		b.want(b.path("learn", small), http.StatusNotFound, 110*time.Millisecond)
		ps := b.paths("0", "1")
		for _, p := range ps {
			for _, f := range []*far{a, c, last} {
				f.add(p)
			}
		}
		b.want(ps[0], http.StatusOK, 20*time.Millisecond)
		if got := last.count(); got != 1 {
			t.Errorf("the last was asked %d times, want once, for what nobody has", got)
		}
		// The order is kept over a restart.
		b.start()
		b.want(ps[1], http.StatusOK, 20*time.Millisecond)
		if got := last.count(); got != 0 {
			t.Errorf("the last was asked %d times after a restart", got)
		}
	})
}

// An upstream that is seldom needed is probed now and then, as long as somebody
// needs any: it might be quicker by now.
func TestProbesOfWhatIsNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		a, c := b.far("a", upstream.Config{}), b.far("c", upstream.Config{})
		a.slow(20 * time.Millisecond)
		c.slow(90 * time.Millisecond)
		b.start()
		b.want(b.path("learn", small), http.StatusNotFound, 110*time.Millisecond)
		c.slow(time.Millisecond)
		c.count()
		for i := range 60 { // an hour in which somebody works
			p := b.path(fmt.Sprint(i), small)
			a.add(p)
			c.add(p)
			b.ask(p.narinfoURL())
			time.Sleep(time.Minute)
			if i == 10 && c.count() != 0 {
				t.Error("probed too soon")
			}
		}
		if got := c.requests("nix-cache-info"); got != 1 {
			t.Errorf("%d probes, want 1: now it is the quicker one", got)
		}
		if len(c.asked) < 30 {
			t.Errorf("the quicker one was asked %d times", len(c.asked))
		}
		// Also not more if it is down.
		a.fail(reset)
		a.count()
		for i := range 240 {
			p := b.path(fmt.Sprint("q", i), small)
			c.add(p)
			b.want(p, http.StatusOK, time.Millisecond)
			time.Sleep(15 * time.Second)
		}
		if got := a.count(); got < 3 || got > 5 {
			t.Errorf("%d requests in an hour to what is down and not needed, want 4", got)
		}
		c.count()
		time.Sleep(24 * time.Hour)
		if a, c := a.count(), c.count(); a+c != 0 {
			t.Errorf("%d and %d requests in a day in which nobody works", a, c)
		}
	})
}

// While an upstream is down it is probed, less and less often, and only as long
// as somebody wants it; so requests find it again without having waited.
func TestProbesOfWhatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		a := b.far("a", upstream.Config{})
		b.start()
		a.fail(status(503, "Retry-After", "1"))
		b.want(b.path("0", small), http.StatusNotFound, 0)
		a.count()
		for i := range 120 { // a minute in which somebody works
			b.want(b.path(fmt.Sprint("p", i), small), http.StatusNotFound, 0)
			time.Sleep(500 * time.Millisecond)
		}
		if got := a.count(); got < 4 || got > 12 {
			t.Errorf("%d requests in a minute, want about 7", got)
		}
		a.fail(nil)
		p := b.path("p", small)
		a.add(p)
		time.Sleep(20 * time.Second)
		if !b.server.Stats().Upstreams[0].Reachable {
			t.Error("not found again")
		}
		b.want(p, http.StatusOK, 0)

		a.fail(reset)
		for i := range 5 {
			b.ask(b.path(fmt.Sprint("q", i), small).narinfoURL())
		}
		time.Sleep(time.Hour)
		a.count()
		time.Sleep(24 * time.Hour)
		if got := a.count(); got != 0 {
			t.Errorf("%d requests in a day in which nobody works", got)
		}
	})
}

// An upstream that wants to be left alone is, by every way, and Nix hears
// nothing of it.
func TestRetryAfter(t *testing.T) {
	for _, code := range []int{429, 503} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				a := b.far("a", upstream.Config{})
				b.deps.Peers = nil
				known, p := b.path("known", small), b.path("p", small)
				a.add(known)
				a.add(p)
				b.start()
				b.want(known, http.StatusOK, 0)
				a.fail(status(code, "Retry-After", "100"))
				resp, _ := b.ask(p.narinfoURL())
				if resp.Code != http.StatusNotFound || resp.Header().Get("Retry-After") != "" {
					t.Errorf("%d, %v", resp.Code, resp.Header())
				}
				a.fail(nil)
				a.count()
				for range 33 {
					for _, target := range []string{p.narinfoURL(), known.narURL(), "/" + p.part().String() + ".ls"} {
						if resp, _ := b.ask(target); resp.Code != http.StatusNotFound || resp.Header().Get("Retry-After") != "" {
							t.Errorf("%s: %d, %v", target, resp.Code, resp.Header())
						}
					}
					time.Sleep(3 * time.Second)
				}
				if got := a.count(); got != 0 {
					t.Errorf("asked %d times", got)
				}
				if got := b.server.Stats().Upstreams[0]; got.State != "open" || got.Problem != fmt.Sprintf("%s: status %d", p.narinfoURL()[1:], code) {
					t.Errorf("%+v", got)
				}
				time.Sleep(2 * time.Second)
				b.want(p, http.StatusOK, 0)
				if resp, _ := b.ask(known.narURL()); resp.Code != http.StatusOK {
					t.Errorf("NAR: %d", resp.Code)
				}
			})
		})
	}
}

// A restart in an outage does not wait again, and knows who is quick.
func TestRestartIsWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		a := b.far("a", upstream.Config{})
		a.slow(100 * time.Millisecond)
		b.start()
		b.want(b.path("0", small), http.StatusNotFound, 100*time.Millisecond)
		before := b.server.Stats().Upstreams
		b.start()
		if diff := cmp.Diff(before, b.server.Stats().Upstreams); diff != "" || before[0].State != "ok" {
			t.Errorf("%+v:\n%s", before, diff)
		}
		a.vanish(true)
		b.want(b.path("1", small), http.StatusNotFound, 2*time.Second)
		b.start()
		b.want(b.path("2", small), http.StatusNotFound, 0)

		// What is kept may be anything.
		b.stop()
		b.deps.Health.(*bucket).change(func([]byte) []byte { return []byte("{}}") })
		a.vanish(false)
		b.start()
		b.want(b.path("3", small), http.StatusNotFound, 100*time.Millisecond)
	})
}

// At the start each upstream is asked once, whether it works: then there is a
// connection, and the quicker is known. That it does not answer says nothing:
// a laptop may start before its network.
func TestGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		a, c := b.far("a", upstream.Config{}), b.far("c", upstream.Config{})
		a.slow(90 * time.Millisecond)
		c.slow(20 * time.Millisecond)
		p := b.path("p", small)
		a.add(p)
		c.add(p)
		b.start()
		b.want(p, http.StatusOK, 20*time.Millisecond)
		if got := a.count(); got != 0 {
			t.Errorf("the slower one was asked %d times", got)
		}

		b.deps.Health = newBucket()
		a.refuse()
		c.refuse()
		b.start()
		for _, u := range b.server.Stats().Upstreams {
			if u.State != "unknown" {
				t.Errorf("after a greeting without an answer: %+v", u)
			}
		}
	})
}

// Definite absence is remembered, ignorance is not.
func TestAbsentOrUnknown(t *testing.T) {
	for _, tt := range []struct {
		name            string
		public, private http.HandlerFunc
		absent          bool
	}{
		{"all say 404", status(404), status(404), true},
		{"one is down", status(404), reset, false},
		{"the other is down", reset, status(404), false},
		{"both are down", reset, reset, false},
		{"one hangs", status(404), hang, false},
		// It would not answer for another path either, nor in half a minute.
		{"one does not know us", status(404), status(401), true},
		{"one does not know us, as S3 says it", status(404), status(403), true},
		{"nobody else is there", reset, status(401), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				public, private := b.far("public", upstream.Config{}), b.far("private", upstream.Config{Private: true})
				public.fail(tt.public)
				private.fail(tt.private)
				b.start()
				p := b.path("p", small)
				b.ask(p.narinfoURL())
				public.count()
				time.Sleep(20 * time.Second)
				public.count()
				b.ask(p.narinfoURL())
				if asked := public.count() > 0; asked == tt.absent {
					t.Errorf("asked again: %v, want %v", asked, !tt.absent)
				}
			})
		})
	}
}

// What the filter does not let pass counts as absent; but strangers do not hear
// of what a private upstream has, wanted or not.
func TestFilter(t *testing.T) {
	for _, private := range []bool{false, true} {
		t.Run(fmt.Sprint("private ", private), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				a := b.far("a", upstream.Config{Include: []string{"acme-*"}, Exclude: []string{"*-doc"}, Private: private})
				c := b.far("c", upstream.Config{Priority: 1})
				b.start()
				for name, wanted := range map[string]bool{"acme-x": true, "acme-x-doc": false, "x": false} {
					p := b.path(name, small)
					a.add(p)
					c.count()
					resp, _ := b.ask(p.narinfoURL())
					if got := resp.Code == http.StatusOK; got != wanted || (c.count() == 0) != wanted {
						t.Errorf("%s: %d", name, resp.Code)
					}
					c.add(p)
					b.deps.Records = newBucket()
				}
				// The NAR of what c has is not taken from a.
				b.start()
				p := b.path("x", small)
				b.want(p, http.StatusOK, 0)
				c.remove(p.info.URL)
				a.count()
				if resp, _ := b.ask(p.narURL()); resp.Code != http.StatusNotFound || a.count() != 0 {
					t.Errorf("NAR: %d", resp.Code)
				}

				// With the public one down strangers hear of what a has not.
				c.fail(reset)
				for name, known := range map[string]bool{"known": true, "unknown": false} {
					p := b.path(name, small)
					if known {
						a.add(p)
					}
					b.peers.calls()
					b.want(p, http.StatusNotFound, 0)
					want := private && !known
					if got, _, _ := b.peers.calls(); slices.Contains(got, true) != want {
						t.Errorf("%s: peers asked, strangers too: %v, want %v", name, got, want)
					}
				}
			})
		})
	}
}

// While a private upstream is left alone, nobody knows what is private.
func TestStrangersAreNotToldMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		b.cfg.RacePeers = true
		b.far("public", upstream.Config{}).fail(reset)
		b.far("private", upstream.Config{Private: true}).fail(reset)
		b.start()
		for i := range 20 {
			b.want(b.path(fmt.Sprint(i), small), http.StatusNotFound, 0)
			time.Sleep(100 * time.Millisecond)
		}
		if got := b.server.Stats().Upstreams; got[0].Reachable || got[1].Reachable {
			t.Errorf("%+v", got)
		}
		if got, _, _ := b.peers.calls(); slices.Contains(got, true) || len(got) < 20 {
			t.Errorf("peers asked, strangers too: %v", got)
		}
	})
}

// With race_peers peers answer before a slow upstream; but strangers are not
// asked about what may be a private path.
func TestRacePeers(t *testing.T) {
	for _, tt := range []struct {
		name            string
		public, private time.Duration // latencies
		missing         bool          // the public one does not have it
		without         bool          // no private one is configured
		want            []bool        // Narinfos' strangers
		took            time.Duration
	}{
		{"no private upstream", time.Second, 0, false, true, []bool{true}, 0},
		{"no private upstream, absent", time.Second, 0, true, true, []bool{true}, 0},
		{"a private one says 404", time.Second, 20 * time.Millisecond, false, false, []bool{false, true}, 320 * time.Millisecond},
		{"a private one is slow", 200 * time.Millisecond, time.Second, false, false, []bool{false}, 200 * time.Millisecond},
		{"the private one is last to say 404", 100 * time.Millisecond, 200 * time.Millisecond, true, false, []bool{false}, 300 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				b.cfg.RacePeers = true
				p := b.path("p", small)
				public := b.far("public", upstream.Config{Priority: 1})
				public.slow(tt.public)
				if !tt.missing {
					public.add(p)
				}
				if !tt.without {
					b.far("private", upstream.Config{Private: true, Priority: 2}).slow(tt.private)
				}
				b.peers.reluctant = true // only strangers have it
				b.peers.add(fromPeer(p))
				b.start()
				wanted := http.StatusOK
				if tt.missing && !slices.Contains(tt.want, true) {
					wanted = http.StatusNotFound
				}
				b.want(p, wanted, tt.took)
				if got, _, _ := b.peers.calls(); !cmp.Equal(got, tt.want) {
					t.Errorf("peers asked, strangers too: %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// Strangers may add their signatures to what a public upstream has.
func TestSignaturesOfStrangers(t *testing.T) {
	for _, tt := range []struct {
		name            string
		private, secret bool
		want            []bool
	}{
		{"public", false, false, []bool{true}},
		{"not askable", false, true, []bool{false}},
		{"private", true, false, []bool{false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				second, err := narinfo.GenerateSecretKey("test-2")
				if err != nil {
					t.Fatal(err)
				}
				b.cfg.Trust.Trusted = append(b.cfg.Trust.Trusted, second.Public())
				b.cfg.Trust.Threshold = 2
				b.deps.Askable = func(*narinfo.Info) bool { return !tt.secret }
				p := b.path("p", small)
				b.far("a", upstream.Config{Private: tt.private}).add(p)
				other := *p.info
				other.Signatures = []narinfo.Signature{second.Sign(other.Fingerprint())}
				b.peers.reluctant = true
				b.peers.add(&other)
				b.start()
				wanted := http.StatusNotFound
				if slices.Contains(tt.want, true) {
					wanted = http.StatusOK
				}
				b.want(p, wanted, 0)
				if got, _, _ := b.peers.calls(); !cmp.Equal(got, tt.want) {
					t.Errorf("peers asked, strangers too: %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// A NAR comes from the upstream whose record it is; if that fails, from the one
// whose NARs come fastest; and not from one that is down.
func TestNARsOfSeveralUpstreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		b.deps.Peers = nil
		a, c, d := b.far("a", upstream.Config{}), b.far("c", upstream.Config{}), b.far("d", upstream.Config{})
		b.start()
		nar := func(p *path, from *far) {
			t.Helper()
			resp, _ := b.ask(p.narURL())
			if resp.Code != http.StatusOK || !bytes.Equal(resp.Body.Bytes(), p.nar) {
				t.Errorf("%d, %d bytes", resp.Code, resp.Body.Len())
			}
			for _, f := range []*far{a, c, d} {
				f.cache.mu.Lock()
				asked := slices.Contains(f.asked, p.info.URL)
				f.cache.mu.Unlock()
				if asked != (f == from) {
					t.Errorf("%s: asked of %s: %v, want it of %s", p.info.StorePath.Name(), f.url, asked, from.url)
				}
				f.count()
			}
		}
		// Each has a large NAR that the others have not: so it is learnt how fast
		// they are.
		for i, f := range []*far{a, c, d} {
			p := b.path(fmt.Sprint("large", i), 4<<20)
			f.add(p)
			f.fail(paced(f.cache, time.Duration(10-3*i)*10*time.Millisecond))
			b.ask(p.narinfoURL())
			nar(p, f)
		}
		got := b.server.Stats().Upstreams
		if got[0].BytesPerSecond*1.2 > got[1].BytesPerSecond || got[1].BytesPerSecond*1.2 > got[2].BytesPerSecond {
			t.Errorf("throughput: %+v", got)
		}

		p := b.path("p", small)
		a.add(p)
		b.want(p, http.StatusOK, 0)
		c.add(p)
		d.add(p)
		nar(p, a)
		a.remove(p.info.URL)
		resp, _ := b.ask(p.narURL())
		if resp.Code != http.StatusOK || d.requests(p.info.URL) != 1 || c.requests(p.info.URL) != 0 {
			t.Errorf("without the first: %d; %v, %v", resp.Code, c.asked, d.asked)
		}
		d.vanish(true)
		d.fail(reset)
		for i := range 5 {
			b.ask(b.path(fmt.Sprint(i), small).narinfoURL())
		}
		for _, f := range []*far{a, c, d} {
			f.count()
		}
		if b.server.Stats().Upstreams[2].Reachable {
			t.Fatal("d is taken to work")
		}
		resp, _ = b.ask(p.narURL())
		if resp.Code != http.StatusOK || c.requests(p.info.URL) != 1 || d.count() != 0 {
			t.Errorf("without the third: %d; %v, %v", resp.Code, c.asked, d.asked)
		}
	})
}

// paced gives a NAR in pieces, with pauses.
func paced(c *cache, pause time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		file, ok := c.files[strings.TrimPrefix(r.URL.Path, "/")]
		c.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(file)))
		for piece := range slices.Chunk(file, 256<<10) {
			if len(file) > len(piece) {
				time.Sleep(pause)
			}
			_, _ = w.Write(piece)
		}
	}
}

// A NAR that breaks off, or stalls, is a mark against the upstream, however often
// it is tried.
func TestNARsThatBreakOff(t *testing.T) {
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request){"breaks": reset, "stalls": hang} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				b.deps.Peers = nil
				a := b.far("a", upstream.Config{})
				paths := b.paths("p", "q", "r")
				b.start()
				for _, p := range paths {
					a.add(p)
					b.want(p, http.StatusOK, 0)
				}
				a.fail(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Length", fmt.Sprint(small))
					_, _ = w.Write(make([]byte, 1000))
					_ = http.NewResponseController(w).Flush()
					fault(w, r)
				})
				for i, p := range []*path{paths[0], paths[0], paths[1], paths[2]} {
					if got := b.server.Stats().Upstreams[0]; got.State != "ok" && name == "breaks" {
						t.Errorf("after %d requests: %+v", i, got)
					}
					if resp, _ := b.ask(p.narURL()); resp.Code != http.StatusNotFound {
						t.Errorf("%d", resp.Code)
					}
				}
				got := b.server.Stats().Upstreams[0]
				if !got.Reachable || got.State != "narinfos only" || !strings.HasPrefix(got.Problem, "NAR: ") {
					t.Errorf("after three NARs: %+v", got)
				}
			})
		})
	}
}

func TestUpstreamMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		b.deps.Peers = nil
		registry := prometheus.NewRegistry()
		b.deps.Metrics = registry
		a := b.far("a", upstream.Config{})
		b.cfg.Upstreams[0].URL = "http://me:secret@a.example"
		a.slow(20 * time.Millisecond)
		p := b.path("p", 2<<20)
		a.add(p)
		b.start()
		b.want(p, http.StatusOK, 20*time.Millisecond)
		b.ask(p.narURL())
		b.want(b.path("q", small), http.StatusNotFound, 20*time.Millisecond)
		a.fail(status(503, "Retry-After", "60"))
		b.ask(b.path("r", small).narinfoURL())
		b.ask(b.path("s", small).narinfoURL())
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				var labels []string
				for _, l := range m.GetLabel() {
					labels = append(labels, l.GetValue())
				}
				if name, ok := strings.CutPrefix(f.GetName(), "nar_p2p_upstream_"); ok {
					value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
					got[name+" "+strings.Join(labels, " ")] = value
				}
			}
		}
		if rate := got["throughput_bytes_per_second http://a.example"]; rate <= 0 {
			t.Errorf("throughput %v", rate)
		}
		delete(got, "throughput_bytes_per_second http://a.example")
		want := map[string]float64{
			"requests_total narinfo found http://a.example":   1,
			"requests_total narinfo absent http://a.example":  1,
			"requests_total narinfo failed http://a.example":  1,
			"requests_total narinfo skipped http://a.example": 1,
			"requests_total nar found http://a.example":       1,
			"requests_total probe found http://a.example":     1, // at the start
			"latency_seconds http://a.example":                2,
			"open http://a.example":                           1,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// What the owner has configured wrongly is said at the start, without secrets.
func TestBadUpstreams(t *testing.T) {
	good := newLab(t)
	file := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(file, []byte("machine elsewhere password hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, upstreams := range map[string][]upstream.Config{
		"listed twice": {{URL: "https://a.example/"}, {URL: "https://me:hush@a.example"}},
		"no login":     {{URL: "https://a.example", Netrc: file}},
	} {
		l := *good
		l.cfg.Upstreams = upstreams
		if _, err := substituter.New(l.cfg, l.deps); err == nil || !strings.Contains(err.Error(), "https://a.example") || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
