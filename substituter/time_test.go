package substituter_test

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/substituter"
)

// offline is a substituter without upstreams and sockets, for a bubble in which
// time is not real. It is made at the first request.
func offline(t *testing.T) (*lab, func(target string) (int, []byte)) {
	t.Helper()
	l := newUnstartedLab(t)
	t.Cleanup(func() { time.Sleep(time.Minute) }) // everything has a deadline
	return l, func(target string) (int, []byte) { return l.serve(http.MethodGet, target) }
}

// restart makes a substituter that knows what the bucket holds.
func (l *lab) restart() {
	l.t.Helper()
	var err error
	if l.server, err = substituter.New(l.cfg, l.deps); err != nil {
		l.t.Fatal(err)
	}
}

// serve asks the handler, without a socket.
func (l *lab) serve(method, target string) (int, []byte) {
	l.t.Helper()
	if l.server == nil {
		l.restart()
	}
	req := httptest.NewRequestWithContext(l.t.Context(), method, "http://localhost"+target, nil)
	recorder := httptest.NewRecorder()
	func() {
		defer func() {
			if r := recover(); r != nil && r != http.ErrAbortHandler { //nolint:errorlint // a panic's value
				panic(r)
			}
		}()
		l.server.Handler().ServeHTTP(recorder, req)
	}()
	return recorder.Code, recorder.Body.Bytes()
}

func TestTimeouts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		size   int
		peers  holding
		status int
	}{
		{"stall in the middle", large, holding{earned: true, stall: large / 2}, 200},
		{"stall in the middle of a small one", small, holding{stall: small / 2}, 200},
		{"stall while spooling", large, holding{stall: large / 2}, 404},
		{"silence", small, holding{silent: true}, 404},
		{"silence, large", large, holding{silent: true}, 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, get := offline(t)
				p := l.path("p", tt.size)
				tt.peers.nar = p.nar
				l.peers.add(fromPeer(p))
				l.peers.hold(p.info.NARHash, tt.peers)
				begin := time.Now()
				status, body := get(p.narURL())
				if status != tt.status || status == 200 && !bytes.Equal(body, p.nar) {
					t.Errorf("%d, %d bytes, want %d", status, len(body), tt.status)
				}
				if took := time.Since(begin); took > 2*time.Minute {
					t.Errorf("Nix had to wait %v", took)
				}
			})
		})
	}
}

// Peers that lie again and again are left out, for an hour.
func TestDistrustEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, get := offline(t)
		p := l.path("p", small)
		l.peers.add(fromPeer(p))
		l.peers.hold(p.info.NARHash, holding{nar: p.flipped()})
		if status, _ := get(p.narURL()); status != 404 {
			t.Fatalf("wrong bytes: %d", status)
		}
		l.peers.hold(p.info.NARHash, holding{nar: p.nar})
		for _, tt := range []struct {
			wait   time.Duration
			status int
		}{{0, 404}, {50 * time.Minute, 404}, {20 * time.Minute, 200}} {
			time.Sleep(tt.wait)
			if status, _ := get(p.narURL()); status != tt.status {
				t.Errorf("%v later: %d, want %d", tt.wait, status, tt.status)
			}
		}
		if _, _, verdicts := l.peers.calls(); !cmp.Equal(verdicts, []bool{false, false, false, false, true}) {
			t.Errorf("verdicts %v", verdicts)
		}
	})
}

// Where one peer has lied, another one's bytes are taken: there need be no upstream.
func TestHonestPeerAfterALiar(t *testing.T) {
	for _, size := range []int{small, large} {
		synctest.Test(t, func(t *testing.T) {
			l, get := offline(t)
			registry := prometheus.NewRegistry()
			l.deps.Metrics = registry
			l.restart()
			p := l.path("p", size)
			l.peers.add(fromPeer(p))
			l.peers.hold(p.info.NARHash, holding{nar: p.flipped(), next: &holding{nar: p.nar}})
			if status, body := get(p.narURL()); status != 200 || !bytes.Equal(body, p.nar) {
				t.Errorf("%d bytes: status %d, %d bytes", size, status, len(body))
			}
			if _, _, verdicts := l.peers.calls(); !cmp.Equal(verdicts, []bool{false, true}) {
				t.Errorf("%d bytes: verdicts %v", size, verdicts)
			}
			wasted := gathered(t, registry, "nar_p2p_plan_wasted_bytes_total")
			if got := slices.Max(slices.Collect(maps.Values(wasted))); got != float64(len(p.nar)) {
				t.Errorf("%v bytes in vain, want the lie's %d", wasted, len(p.nar))
			}
		})
	}
}

// Whoever asks and does not read must not hold a connection for ever.
func TestClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := offline(t)
		l.restart()
		p := l.path("p", small)
		l.peers.add(fromPeer(p))
		l.peers.hold(p.info.NARHash, holding{nar: p.nar})
		for _, target := range []string{p.narinfoURL(), p.narURL()} {
			client, far := net.Pipe()
			conns := make(chan net.Conn, 1)
			conns <- far
			done := make(chan error, 1)
			server := substituter.NewHTTPServer(l.server.Handler(), zap.NewNop())
			go func() { done <- server.Serve(pipeListener{conns}) }()
			if _, err := fmt.Fprintf(client, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", target); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if n, err := client.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: the server still writes: %d bytes", target, n)
			}
			client.Close()
			close(conns)
			<-done
		}
	})
}

// pipeListener accepts connections until there are no more.
type pipeListener struct{ conns <-chan net.Conn }

func (l pipeListener) Accept() (net.Conn, error) {
	if conn, ok := <-l.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (pipeListener) Close() error   { return nil }
func (pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
