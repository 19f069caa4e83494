package upstream_test

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// A laptop wakes up in another network: its connections are dead, and nobody
// says so. Asking anew must not use them.
func TestReconnect(t *testing.T) {
	text, _, _ := genuine(t)
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			var protocol atomic.Value
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				protocol.Store(r.Proto)
				_, _ = w.Write(text)
			}))
			cfg := upstream.Config{}
			if server.EnableHTTP2 = version == "HTTP/2.0"; server.EnableHTTP2 {
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			cfg.URL = server.URL
			var dead atomic.Bool // all connections made so far
			cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				dead.Store(false)
				return &mortal{Conn: conn, dead: &dead}, err
			}
			c, err := upstream.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseIdleConnections()
			ask := func(patience time.Duration) error {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_, err := c.Narinfo(ctx, hashPart(t))
				return err
			}
			if err := ask(time.Minute); err != nil || protocol.Load() != version {
				t.Fatalf("%v by %v", err, protocol.Load())
			}
			dead.Store(true)
			if err := ask(100 * time.Millisecond); !upstream.TimedOut(err) {
				t.Fatalf("over a dead connection: %v", err)
			}
			c.Reconnect()
			if err := ask(time.Minute); err != nil {
				t.Errorf("anew: %v", err)
			}
		})
	}
}

// mortal is a connection into which everything vanishes once it is dead.
type mortal struct {
	net.Conn
	dead *atomic.Bool
}

func (m *mortal) Write(p []byte) (int, error) {
	if m.dead.Load() {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

// TestMain makes this process trust the certificate of httptest's servers.
func TestMain(m *testing.M) {
	server := httptest.NewTLSServer(nil)
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	server.Close()
	file, err := os.CreateTemp("", "*.pem")
	if err == nil {
		_, err = file.Write(block)
	}
	if err == nil {
		err = os.Setenv("SSL_CERT_FILE", file.Name())
	}
	if err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.Remove(file.Name())
		os.Exit(code)
	}))
}
