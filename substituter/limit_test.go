package substituter_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/throttle"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// Many NARs at once come at the limit, all together, and none is given up however
// low it is: no source is taken for slow, none is asked twice.
func TestDownloadLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, count, size = 64 << 10, 16, 1 << 20 // each takes 4 minutes
		b := newBubble(t)
		f := b.far("cache", upstream.Config{})
		b.deps.Downloads = throttle.New(limit)
		var paths []*path
		for i := range count {
			p := b.path(fmt.Sprint("p", i), size)
			f.add(p)
			paths = append(paths, p)
		}
		b.start()
		defer b.stop()
		begin := time.Now()
		var clients sync.WaitGroup
		for _, p := range paths {
			clients.Go(func() {
				b.ask(p.narinfoURL())
				w := &timedRecorder{begin: time.Now()}
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+p.narURL(), http.NoBody)
				b.server.Handler().ServeHTTP(w, req)
				if w.status != http.StatusOK || !bytes.Equal(w.body.Bytes(), p.nar) {
					t.Errorf("%s: %d with %d bytes", p.info.StorePath.Name(), w.status, w.body.Len())
				}
				if w.longest > 100*time.Second { // Nix waits for 300 s
					t.Errorf("%s: nothing came in %v", p.info.StorePath.Name(), w.longest)
				}
			})
		}
		clients.Wait()
		if took, want := time.Since(begin), count*size/limit*time.Second; took < want*9/10 || took > want*11/10 {
			t.Errorf("it took %v, want about %v", took, want)
		}
		for _, p := range paths {
			if n := f.requests(p.info.URL); n != 1 {
				t.Errorf("%s was asked for %d times", p.info.URL, n)
			}
		}
		told, err := b.server.Explain(t.Context(), paths[0].part())
		if err != nil || told.Fetch == nil || told.DownloadLimit != limit {
			t.Fatalf("explained %+v, %v", told, err)
		}
		for _, s := range told.Fetch.Sources {
			if s.Kind == explain.FromUpstream && s.HeldSeconds < 100 {
				t.Errorf("held for %v s", s.HeldSeconds)
			}
		}
	})
}

// An upstream that falls silent is replaced although there is a limit.
func TestDownloadLimitHidesNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		first, second := b.far("first", upstream.Config{Priority: 1}), b.far("second", upstream.Config{Priority: 2})
		b.deps.Downloads = throttle.New(1 << 20)
		p := b.path("p", 4<<20)
		first.add(p)
		second.add(p)
		b.start()
		defer b.stop()
		b.ask(p.narinfoURL())
		first.fail(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(p.nar)))
			w.Write(p.nar[:1<<20])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		resp, took := b.ask(p.narURL())
		if resp.Code != http.StatusOK || !bytes.Equal(resp.Body.Bytes(), p.nar) || took > 10*time.Second {
			t.Errorf("%d with %d bytes after %v", resp.Code, resp.Body.Len(), took)
		}
	})
}

// What lies in the local store comes at once, whatever the limit.
func TestDownloadLimitSparesTheStore(t *testing.T) {
	l := newLab(t)
	l.deps.Downloads = throttle.New(1) // byte a second
	p := l.path("p", 1<<20)
	l.deps.Store = store{map[nix.HashPart]*path{p.part(): p}}
	l.start()
	l.getNAR(p)
	told, err := l.server.Explain(t.Context(), p.part())
	if err != nil {
		t.Fatal(err)
	}
	for _, note := range told.Notes {
		if strings.Contains(note, "limited") {
			t.Errorf("of what lies in the store is told: %s", note)
		}
	}
}

// timedRecorder notes the longest time without a byte.
type timedRecorder struct {
	begin   time.Time
	longest time.Duration
	status  int
	body    bytes.Buffer
}

func (r *timedRecorder) Header() http.Header { return http.Header{} }

func (r *timedRecorder) WriteHeader(status int) { r.status = status }

func (r *timedRecorder) Write(p []byte) (int, error) {
	r.longest = max(r.longest, time.Since(r.begin))
	r.begin = time.Now()
	return r.body.Write(p)
}
