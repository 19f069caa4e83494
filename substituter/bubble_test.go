package substituter_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/substituter"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// greeted is longer than any upstream here takes to answer at the start, and
// shorter than one is left alone that has failed.
const greeted = 300 * time.Millisecond

// bubble is a lab without sockets, for a bubble in which time is not real: its
// upstreams are in memory. It begins with none.
type bubble struct {
	*lab
	fars []*far
	stop func() // ends the server
}

func newBubble(t *testing.T) *bubble {
	t.Helper()
	l := newUnstartedLab(t)
	l.deps.Health = newBucket()
	return &bubble{lab: l, stop: func() {}}
}

// newUnstartedLab returns a lab without upstreams, whose server the test makes.
func newUnstartedLab(t *testing.T) *lab {
	t.Helper()
	key, err := narinfo.GenerateSecretKey("test-1")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, key: key, peers: newNetwork()}
	l.cfg = substituter.Config{
		Trust:    trust.Keys{Trusted: []narinfo.PublicKey{key.Public()}},
		SpoolDir: t.TempDir(),
	}
	l.deps = substituter.Deps{
		Log: zap.NewNop(), Records: newBucket(), Peers: l.peers,
		Askable: func(*narinfo.Info) bool { return true },
	}
	return l
}

// start starts a server, or another one that knows only what the buckets hold,
// and waits until it has greeted its upstreams, which does not count.
func (b *bubble) start() {
	b.t.Helper()
	b.stop()
	server, err := substituter.New(b.cfg, b.deps)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	b.server = server
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(b.stop)
	time.Sleep(greeted)
	for _, f := range b.fars {
		f.count()
	}
}

// ask sends a request past all sockets. It returns the response and how long it
// took.
func (b *bubble) ask(target string) (*httptest.ResponseRecorder, time.Duration) {
	b.t.Helper()
	req := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "http://localhost"+target, nil)
	recorder := httptest.NewRecorder()
	begin := time.Now()
	func() {
		defer func() {
			if r := recover(); r != nil && r != http.ErrAbortHandler { //nolint:errorlint // a panic's value
				panic(r)
			}
		}()
		b.server.Handler().ServeHTTP(recorder, req)
	}()
	return recorder, time.Since(begin)
}

// want asks for a narinfo, which must come, or not, after this time.
func (b *bubble) want(p *path, status int, took time.Duration) {
	b.t.Helper()
	resp, got := b.ask(p.narinfoURL())
	if resp.Code != status || got != took {
		b.t.Errorf("%s: %d after %v, want %d after %v", p.info.StorePath.Name(), resp.Code, got, status, took)
	}
}

// paths are new paths of these names.
func (b *bubble) paths(names ...string) []*path {
	all := make([]*path, len(names))
	for i, name := range names {
		all[i] = b.path(name, small)
	}
	return all
}

// far is a cache in memory.
type far struct {
	*cache
	mu       sync.Mutex
	refusing bool // connections
	vanished bool // packets to it are lost
	latency  time.Duration
	conns    []net.Conn
	wires    chan net.Conn
}

// far adds a cache as an upstream, under this name in the domain "example".
func (b *bubble) far(name string, cfg upstream.Config) *far {
	b.t.Helper()
	f := &far{cache: &cache{url: "http://" + name + ".example", files: make(map[string][]byte)}, wires: make(chan net.Conn)}
	f.files["nix-cache-info"] = []byte("StoreDir: /nix/store\n")
	server := &http.Server{Handler: f}
	go func() { _ = server.Serve(pipeListener{f.wires}) }()
	b.t.Cleanup(func() {
		close(f.wires)
		server.Close()
	})
	cfg.URL, cfg.Dial = f.url, f.dial
	b.fars = append(b.fars, f)
	b.cfg.Upstreams = append(b.cfg.Upstreams, cfg)
	return f
}

func (f *far) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	f.mu.Lock()
	vanished, refusing := f.vanished, f.refusing
	f.mu.Unlock()
	if refusing {
		return nil, errors.New("connection refused")
	}
	near, wire := net.Pipe()
	if !vanished {
		select {
		case f.wires <- wire:
			f.mu.Lock()
			defer f.mu.Unlock()
			f.conns = append(f.conns, near)
			return near, nil
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// ServeHTTP answers after the cache's latency, if it is still wanted.
func (f *far) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	latency := f.latency
	f.mu.Unlock()
	select {
	case <-time.After(latency):
		f.cache.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

// vanish ends all connections to the cache and has packets for new ones lost,
// or no more.
func (f *far) vanish(vanished bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.vanished = vanished
	for _, near := range f.conns {
		near.Close()
	}
	f.conns = nil
}

// refuse has connections to the cache refused.
func (f *far) refuse() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refusing = true
}

// slow sets the cache's latency.
func (f *far) slow(latency time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency = latency
}

// count returns how many requests there were since it was last called.
func (f *far) count() int {
	f.cache.mu.Lock()
	defer f.cache.mu.Unlock()
	n := len(f.asked)
	f.asked = nil
	return n
}
