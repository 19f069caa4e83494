package lab

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// Far is a cache that is far.
type Far struct {
	URL  string
	road *road
}

// Drop ends all connections, as a server does with those that nobody uses.
func (f *Far) Drop() { f.road.drop() }

// Far serves dir, a folder that is a binary cache, a round trip of rtt away:
// bytes take half of it in each direction, however many are under way, and a new
// connection a whole one before its first byte. It speaks HTTP/1.1, or HTTP/2
// over TLS if it is secure; Nix and daemons that come later trust it then.
func (l *Lab) Far(dir string, rtt time.Duration, secure bool) *Far {
	l.t.Helper()
	server := httptest.NewUnstartedServer(http.FileServer(http.Dir(dir)))
	target := server.Listener.Addr().String()
	road := &road{target: target, rtt: rtt, conns: make(map[net.Conn]struct{})}
	var err error
	if road.listener, err = new(net.ListenConfig).Listen(l.t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	if secure {
		server.EnableHTTP2 = true
		server.StartTLS()
		l.trust(server.Certificate().Raw)
	} else {
		server.Start()
	}
	road.running.Go(road.accept)
	l.t.Cleanup(func() {
		road.close()
		server.Close()
	})
	return &Far{URL: strings.Replace(server.URL, target, road.listener.Addr().String(), 1), road: road}
}

// road is the way to a server that is far.
type road struct {
	listener net.Listener
	target   string
	rtt      time.Duration
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

func (r *road) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.running.Go(func() { r.join(near) })
	}
}

func (r *road) join(near net.Conn) {
	defer near.Close()
	far, err := new(net.Dialer).DialContext(context.Background(), "tcp", r.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !r.note(near, far) {
		return
	}
	defer r.forget(near, far)
	var directions sync.WaitGroup
	directions.Go(func() { carry(far, near, r.rtt+r.rtt/2, r.rtt/2) })
	directions.Go(func() { carry(near, far, r.rtt/2, r.rtt/2) })
	directions.Wait()
}

// note remembers connections that close has to close.
func (r *road) note(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.conns[c] = struct{}{}
	}
	return !r.closed
}

func (r *road) forget(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		delete(r.conns, c)
	}
}

func (r *road) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.drop()
	r.running.Wait()
}

func (r *road) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close()
	}
}

// piece is bytes and when they arrive.
type piece struct {
	bytes []byte
	due   time.Time
}

// carry copies from one connection to the other, the first piece after first
// and every other after delay, until either ends.
func carry(to, from net.Conn, first, delay time.Duration) {
	pieces := make(chan piece, 256)
	go func() {
		defer close(pieces)
		earliest := time.Now().Add(first)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			due := time.Now().Add(delay)
			if due.Before(earliest) {
				due = earliest
			}
			if n > 0 {
				pieces <- piece{b[:n], due}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			break
		}
	}
	_ = to.Close() // what comes back has no way any more
	for range pieces {
		continue // until the reader has seen that
	}
}
