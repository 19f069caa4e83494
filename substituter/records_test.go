package substituter_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// A record that was asked for lately is given without disk, store or upstream.
func TestRecordInMemory(t *testing.T) {
	l := newLab(t)
	p := l.path("p", 10)
	l.cache.add(p)
	disk := &breakable{bucket: newBucket()}
	l.deps.Records, l.deps.Store = disk, disk
	l.start()
	_, first := l.get(p.narinfoURL(), http.StatusOK)
	disk.broken.Store(true)
	l.cache.fail(reset)
	for range 3 {
		if _, again := l.get(p.narinfoURL(), http.StatusOK); string(again) != string(first) {
			t.Errorf("the answer was\n%s\nand is\n%s", first, again)
		}
		l.get(p.narURL(), http.StatusNotFound) // its record is found, and no source
	}
	if got := disk.asked.Load(); got != 0 {
		t.Errorf("disk and store were asked for records %d times", got)
	}
}

// breakable is a bucket and a store, and both can break.
type breakable struct {
	*bucket
	store
	broken atomic.Bool
	asked  atomic.Int32 // since it is broken
}

func (b *breakable) Get(key []byte) ([]byte, error) {
	if b.broken.Load() {
		b.asked.Add(1)
		return nil, errNoValue
	}
	return b.bucket.Get(key)
}

func (b *breakable) Info(ctx context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	return b.store.Info(ctx, part)
}

func TestRecordsOnTheDiskAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, get := offline(t)
		l.cfg.MaxRecords = 16
		l.restart()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.server.Run(ctx) }()
		var paths []*path
		for i := range 17 {
			p := l.path(fmt.Sprint(i), 10)
			paths = append(paths, p)
			l.peers.add(fromPeer(p))
			get(p.narinfoURL())
			get(paths[0].narinfoURL()) // it stays in use
			synctest.Wait()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.peers.records = nil
		l.restart()
		for i, p := range paths {
			want := http.StatusOK
			if i > 0 && i <= 3 { // one too many, and two for what comes next
				want = http.StatusNotFound
			}
			if got, _ := get(p.narinfoURL()); got != want {
				t.Errorf("path %d after a restart: %d, want %d", i, got, want)
			}
		}
	})
}

// Whoever looks for the holders of a NAR is told anew only now and then, but is
// told whenever Nix really asks.
func TestExpectedNARs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, get := offline(t)
		p := l.path("p", 10)
		l.peers.add(fromPeer(p))
		want := 0
		check := func(what string, more int) {
			t.Helper()
			if want += more; l.peers.expects != want {
				t.Errorf("%s: told %d times, want %d", what, l.peers.expects, want)
			}
		}
		l.serve(http.MethodHead, p.narinfoURL())
		check("HEAD", 0)
		get(p.narinfoURL())
		check("GET", 1)
		for range 100 {
			get(p.narinfoURL())
		}
		check("GET at once", 0)
		time.Sleep(time.Minute)
		get(p.narinfoURL())
		check("GET later", 1)
		l.restart()
		get(p.narinfoURL())
		check("GET after a restart", 1)
	})
}

func TestAbsentIsNotUnknown(t *testing.T) {
	l := newLab(t)
	registry := prometheus.NewPedanticRegistry()
	l.deps.Metrics, l.deps.Peers = registry, nil
	l.cfg.Deadline = 200 * time.Millisecond
	l.start()
	ask := func(name string) { l.get(l.path(name, 1).narinfoURL(), http.StatusNotFound) }
	ask("absent")
	ask("absent") // and remembered
	for i, fault := range []http.HandlerFunc{
		reset, hang,
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>\n")) },
	} {
		l.cache.fail(fault)
		ask(fmt.Sprint("unknown", i))
	}
	want := map[string]float64{
		"nar_p2p_narinfo_requests_total{result=absent}":  2,
		"nar_p2p_narinfo_requests_total{result=unknown}": 4,
	}
	if diff := cmp.Diff(want, counted(t, registry)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What has come into being is not absent any more.
func TestPresent(t *testing.T) {
	l := newLab(t)
	p, other := l.path("p", 10), l.path("other", 10)
	l.start()
	l.get(p.narinfoURL(), http.StatusNotFound)
	l.get(other.narinfoURL(), http.StatusNotFound)
	l.cache.add(p)
	l.cache.add(other)
	l.get(p.narinfoURL(), http.StatusNotFound) // remembered
	l.server.Present(p.part())
	l.get(p.narinfoURL(), http.StatusOK)
	l.get(other.narinfoURL(), http.StatusNotFound)
}
