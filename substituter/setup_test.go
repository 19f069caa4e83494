package substituter_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// change has the server go by other settings.
func (l *lab) change() {
	l.t.Helper()
	commit, err := l.server.Prepare(l.cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	commit()
}

func (l *lab) trust(keys ...narinfo.SecretKey) {
	l.cfg.Trust.Trusted = nil
	for _, key := range keys {
		l.cfg.Trust.Trusted = append(l.cfg.Trust.Trusted, key.Public())
	}
}

func TestWhatAKeyOfThePastHadVouchedForIsGone(t *testing.T) {
	l := newLab(t).start()
	p := l.path("p", 1000)
	l.cache.add(p)
	l.getNAR(p)
	l.trust(newKey(t, "test-2"))
	l.change()
	l.get(p.narinfoURL(), http.StatusNotFound)
	l.get(p.narURL(), http.StatusNotFound)

	l.trust(l.key)
	l.change()
	l.getNAR(p)
}

// What is found for a question of before is not kept, either.
func TestKeyIsTakenAwayDuringALookup(t *testing.T) {
	l := newLab(t).start()
	p := l.path("p", 1000)
	l.cache.add(p)
	asked, release := make(chan struct{}, 10), make(chan struct{})
	l.cache.fail(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == p.narinfoURL() {
			asked <- struct{}{}
			<-release
		}
		w.Write(p.info.Bytes())
	})
	answer := make(chan int)
	go func() {
		resp, _, err := l.do(http.MethodGet, p.narinfoURL())
		if err != nil {
			t.Error(err)
			answer <- 0
			return
		}
		answer <- resp.StatusCode
	}()
	<-asked
	l.trust(newKey(t, "test-2"))
	l.change()
	close(release)
	if got := <-answer; got != http.StatusNotFound {
		t.Errorf("the answer is %d", got)
	}
	l.get(p.narinfoURL(), http.StatusNotFound)
	l.get(p.narURL(), http.StatusNotFound)
}

func TestTransferUnderWayGoesOn(t *testing.T) {
	l := newLab(t).start()
	p := l.path("large", 20<<20) // more than is held
	l.cache.add(p)
	l.get(p.narinfoURL(), http.StatusOK)
	half, release := make(chan struct{}, 1), make(chan struct{})
	l.cache.fail(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(p.nar[:10<<20])
		http.NewResponseController(w).Flush()
		half <- struct{}{}
		<-release
		w.Write(p.nar[10<<20:])
	})
	body := make(chan []byte)
	go func() {
		_, got, err := l.do(http.MethodGet, p.narURL())
		if err != nil {
			t.Error(err)
		}
		body <- got
	}()
	<-half
	l.trust(newKey(t, "test-2"))
	l.cfg.Upstreams = nil
	l.change()
	close(release)
	if got := <-body; !bytes.Equal(got, p.nar) {
		t.Errorf("%d of %d bytes have come", len(got), len(p.nar))
	}
}

func TestUpstreamsComeAndGo(t *testing.T) {
	l := newLab(t).start()
	other := newCache(t)
	p, q := l.path("p", 1000), l.path("q", 1000)
	other.add(p)
	other.add(q)
	l.get(p.narinfoURL(), http.StatusNotFound)

	l.cfg.Upstreams = append(l.cfg.Upstreams, upstream.Config{URL: other.url})
	l.change()
	l.getNAR(p) // although it was absent a moment ago
	if got := len(l.server.Stats().Upstreams); got != 2 {
		t.Errorf("there are %d upstreams, want 2", got)
	}

	l.cfg.Upstreams = l.cfg.Upstreams[:1]
	l.change()
	l.get(p.narinfoURL(), http.StatusOK)
	l.get(q.narinfoURL(), http.StatusNotFound)
	if got := other.requests(q.narinfoURL()[1:]); got != 0 {
		t.Errorf("an upstream of the past was asked %d times", got)
	}
}

// A key that comes with an upstream makes it private, and goes with it.
func TestUpstreamWithAKeyComesAndGoes(t *testing.T) {
	l := newLab(t).start()
	theirs := newKey(t, "theirs-1")
	p := l.path("p", 1000)
	p.info.Signatures = []narinfo.Signature{theirs.Sign(p.info.Fingerprint())}
	l.cache.add(p)
	l.get(p.narinfoURL(), http.StatusNotFound)
	l.cfg.Upstreams[0].Keys = []narinfo.PublicKey{theirs.Public()}
	l.change()
	l.getNAR(p)
	if !l.server.Stats().Upstreams[0].Private {
		t.Error("an upstream with a key of its own is not private")
	}
	l.cfg.Upstreams[0].Keys = nil
	l.change()
	l.get(p.narinfoURL(), http.StatusNotFound)
	if l.server.Stats().Upstreams[0].Private {
		t.Error("an upstream without a key of its own is private")
	}
}

func TestPrepareRefusesAndChangesNothing(t *testing.T) {
	l := newLab(t).start()
	p := l.path("p", 1000)
	l.cache.add(p)
	wrong := l.cfg
	wrong.Trust.Trusted = nil
	wrong.Upstreams = []upstream.Config{{URL: l.cache.url}, {URL: l.cache.url}}
	if _, err := l.server.Prepare(wrong); err == nil {
		t.Error("an upstream is taken twice")
	}
	l.getNAR(p)
}
