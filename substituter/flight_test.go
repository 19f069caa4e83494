package substituter_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// halting is a cache that gives half of each NAR, and the rest when it is told to.
type halting struct {
	*cache
	half int
	// begun has a value for each NAR of which half was given, and gone for each
	// whose client went before the rest.
	begun, gone chan struct{}
	goOn        chan struct{} // closed to give the rest
}

func (l *lab) halt(half int) *halting {
	h := &halting{
		cache: l.cache, half: half,
		begun: make(chan struct{}, 100), gone: make(chan struct{}, 100), goOn: make(chan struct{}),
	}
	h.fail(h.ServeHTTP)
	return h
}

func (h *halting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	h.mu.Lock()
	file, ok := h.files[name]
	h.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	if !strings.HasPrefix(name, "nar/") {
		_, _ = w.Write(file)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(file)))
	_, _ = w.Write(file[:h.half])
	_ = http.NewResponseController(w).Flush()
	h.begun <- struct{}{}
	select {
	case <-h.goOn:
		_, _ = w.Write(file[h.half:])
	case <-r.Context().Done():
		h.gone <- struct{}{}
		panic(http.ErrAbortHandler)
	}
}

// begin asks for the NAR, and returns once its header has come.
func (l *lab) begin(ctx context.Context, p *path) *http.Response {
	l.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+p.narURL(), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// A NAR that many ask for at once is fetched once, whether it is held until it
// is verified or streamed.
func TestOneFetchForAll(t *testing.T) {
	for _, tt := range []struct {
		name       string
		size, half int
	}{{"small", small, small / 2}, {"large", large, 1 << 20}} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			registry := prometheus.NewRegistry()
			l.deps.Peers, l.deps.Metrics = nil, registry
			p := l.path("p", tt.size)
			l.cache.add(p)
			h := l.halt(tt.half)
			l.start()
			l.get(p.narinfoURL(), http.StatusOK)
			var clients sync.WaitGroup
			fetch := func() {
				resp, body, err := l.do(http.MethodGet, p.narURL())
				if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, p.nar) {
					t.Errorf("%v, %d bytes, %v", resp, len(body), err)
				}
			}
			clients.Go(fetch)
			<-h.begun
			for range 8 {
				clients.Go(fetch)
			}
			for gathered(t, registry, "nar_p2p_plan_shared_total")[""] < 8 {
				time.Sleep(time.Millisecond)
			}
			close(h.goOn)
			clients.Wait()
			if n := l.cache.requests(p.info.URL); n != 1 {
				t.Errorf("the upstream was asked %d times", n)
			}
		})
	}
}

// Whoever does not read holds up nobody, and loses nothing: what it still needs
// is spooled, and where there is no room for that it goes on by itself.
func TestSlowClientHoldsUpNobody(t *testing.T) {
	for _, tt := range []struct {
		name     string
		room     int64
		requests int
	}{{"spooled", 0, 1}, {"no room", 1, 2}} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			l.deps.Peers, l.cfg.SpoolSize = nil, tt.room
			const size = 40 << 20
			p := l.path("p", size)
			l.cache.add(p)
			h := l.halt(1 << 20)
			l.start()
			l.get(p.narinfoURL(), http.StatusOK)
			slow := l.begin(t.Context(), p)
			<-h.begun
			fast := l.begin(t.Context(), p)
			close(h.goOn)
			if body, err := io.ReadAll(fast.Body); err != nil || !bytes.Equal(body, p.nar) {
				t.Fatalf("the fast one: %d bytes, %v", len(body), err)
			}
			if body, err := io.ReadAll(slow.Body); err != nil || !bytes.Equal(body, p.nar) {
				t.Fatalf("the slow one: %d bytes, %v", len(body), err)
			}
			if n := l.cache.requests(p.info.URL); n != tt.requests {
				t.Errorf("the upstream was asked %d times, want %d", n, tt.requests)
			}
		})
	}
}

// A fetch ends with the last who wants it, and not with the first.
func TestFetchEndsWithItsLastClient(t *testing.T) {
	l := newLab(t)
	l.deps.Peers = nil
	p := l.path("p", large)
	l.cache.add(p)
	h := l.halt(1 << 20)
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	ctx, leave := context.WithCancel(t.Context())
	l.begin(ctx, p)
	<-h.begun
	other := l.begin(t.Context(), p)
	leave()
	close(h.goOn)
	if body, err := io.ReadAll(other.Body); err != nil || !bytes.Equal(body, p.nar) {
		t.Fatalf("who stayed: %d bytes, %v", len(body), err)
	}
	if n := l.cache.requests(p.info.URL); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
	h.goOn = make(chan struct{})
	ctx, leave = context.WithCancel(t.Context())
	l.begin(ctx, p)
	<-h.begun
	leave()
	<-h.gone
	if err := l.server.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}
