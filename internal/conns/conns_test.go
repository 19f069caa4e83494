package conns_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/nar-p2p/nar-p2p/internal/conns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves h on a listener with at most limit connections.
func serve(t *testing.T, l net.Listener, limit int, h http.HandlerFunc) {
	t.Helper()
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Hour}
	bounded := conns.Bound(server, l, limit)
	done := make(chan error, 1)
	go func() { done <- server.Serve(bounded) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dial(t *testing.T, l net.Listener, sent string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, sent); err != nil {
		t.Fatal(err)
	}
	return conn
}

// closed waits for the other side to close a connection.
func closed(t *testing.T, conn net.Conn) bool {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := conn.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// A program opens connections and says nothing on them, or never comes to the end
// of a header. Whoever has something to ask is served all the same.
func TestSilentConnectionsMakeRoom(t *testing.T) {
	for name, sent := range map[string]string{"silent": "", "half a header": "GET / HTTP/1.1\r\nHost: x\r\n"} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			serve(t, l, 4, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
			var silent []net.Conn
			for range 20 {
				silent = append(silent, dial(t, l, sent))
			}
			answer, err := http.ReadResponse(bufio.NewReader(dial(t, l, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")), nil)
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Fatalf("behind %d connections: %v, %v", len(silent), answer, err)
			}
			if !closed(t, silent[0]) {
				t.Error("the oldest connection is still open")
			}
		})
	}
}

// Connections with a request keep their place: others are turned away.
func TestRequestsAreNotBrokenOff(t *testing.T) {
	l := listen(t)
	var begun sync.WaitGroup
	begun.Add(2)
	finish := make(chan struct{})
	serve(t, l, 2, func(w http.ResponseWriter, _ *http.Request) {
		begun.Done()
		<-finish
		io.WriteString(w, "ok")
	})
	const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	served := []net.Conn{dial(t, l, request), dial(t, l, request)}
	begun.Wait()
	if !closed(t, dial(t, l, "")) {
		t.Error("a third connection was not turned away")
	}
	close(finish)
	for _, conn := range served {
		if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || answer.StatusCode != http.StatusOK {
			t.Errorf("a request under way got %v, %v", answer, err)
		}
		if !closed(t, conn) {
			t.Error("a connection that was to be closed is open")
		}
	}
	begun.Add(1)
	if answer, err := http.ReadResponse(bufio.NewReader(dial(t, l, request)), nil); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("when there was room again: %v, %v", answer, err)
	}
}

// pipe is a listener with one connection, whose other end it returns.
func pipe() (near net.Conn, l net.Listener) {
	near, far := net.Pipe()
	conns := make(chan net.Conn, 1)
	conns <- far
	return near, &pipeListener{conns: conns, closed: make(chan struct{})}
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// Whoever announces a body and never sends it loses the connection, read or not.
func TestBodyThatNeverComes(t *testing.T) {
	for name, read := range map[string]bool{"read": true, "left alone": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, l := pipe()
				serve(t, l, 1, func(_ http.ResponseWriter, r *http.Request) {
					if read {
						io.Copy(io.Discard, r.Body)
					}
				})
				defer client.Close()
				if _, err := fmt.Fprint(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n1"); err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				io.Copy(io.Discard, client)
				if waited := time.Since(begin); waited > time.Minute {
					t.Errorf("the connection was held for %v", waited)
				}
			})
		})
	}
}

// A body that has come is no reason to end what is done with it.
func TestWorkMayTakeLongerThanTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, l := pipe()
		serve(t, l, 1, func(w http.ResponseWriter, r *http.Request) {
			text, err := io.ReadAll(r.Body)
			select {
			case <-r.Context().Done():
			case <-time.After(20 * time.Minute):
			}
			fmt.Fprintf(w, "%s, %v, %v", text, err, context.Cause(r.Context()))
		})
		defer client.Close()
		if _, err := fmt.Fprint(client, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(client)
		if err != nil || !strings.HasSuffix(string(answer), "body, <nil>, <nil>") {
			t.Errorf("answer %q, %v", answer, err)
		}
	})
}

// Whoever does not read an answer loses it, although its handler sets no deadline;
// one that does has its own.
func TestAnswerThatNobodyReads(t *testing.T) {
	for name, own := range map[string]time.Duration{"no deadline": 0, "a shorter one": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, l := pipe()
				defer client.Close()
				gaveUp := make(chan time.Duration, 1)
				serve(t, l, 1, func(w http.ResponseWriter, _ *http.Request) {
					begin := time.Now()
					if own > 0 {
						_ = http.NewResponseController(w).SetWriteDeadline(begin.Add(own))
					}
					for {
						if _, err := w.Write(make([]byte, 64<<10)); err != nil {
							gaveUp <- time.Since(begin)
							return
						}
					}
				})
				if _, err := fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				want := 5 * time.Minute
				if own > 0 {
					want = own
				}
				if got := <-gaveUp; got != want {
					t.Errorf("gave up after %v, want %v", got, want)
				}
			})
		})
	}
}
