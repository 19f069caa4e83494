package upstream_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// in is a cache in memory: its connections are pipes to a server with this
// handler. It is for bubbles in which time is not real.
func in(t *testing.T, h http.HandlerFunc) upstream.Config {
	t.Helper()
	conns := make(chan net.Conn)
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(pipes{conns}) }()
	t.Cleanup(func() {
		close(conns)
		server.Close()
	})
	return upstream.Config{URL: "http://cache.example.org", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		client, far := net.Pipe()
		select {
		case conns <- far:
			return client, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
}

type pipes struct{ conns <-chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (pipes) Close() error   { return nil }
func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		status int
		header string
		want   time.Duration
	}{
		{429, "120", 2 * time.Minute},
		{503, "1", time.Second},
		{503, "date", 90 * time.Second},
		{429, "past", 0},
		{429, "", 0},
		{429, "-1", 0},
		{429, "soon", 0},
		{429, "99999999999999999999", 0},
		{500, "120", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, err := upstream.New(in(t, func(w http.ResponseWriter, _ *http.Request) {
				header := tt.header
				switch header {
				case "date":
					header = time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
				case "past":
					header = time.Now().Add(-90 * time.Second).UTC().Format(http.TimeFormat)
				}
				w.Header().Set("Retry-After", header)
				w.WriteHeader(tt.status)
			}))
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseIdleConnections()
			_, err = c.Narinfo(t.Context(), hashPart(t))
			var status *upstream.StatusError
			if !errors.As(err, &status) || status.Code != tt.status || status.RetryAfter != tt.want {
				t.Errorf("%d, Retry-After %q: %v, %+v, want %v", tt.status, tt.header, err, status, tt.want)
			}
		})
	}
}

// Each failure is known for what it is.
func TestFailures(t *testing.T) {
	type class struct{ unconnected, timedOut, refused bool }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for _, tt := range []struct {
		name    string
		dial    func(ctx context.Context) error // instead of a connection
		handler http.HandlerFunc
		want    class
		took    time.Duration
	}{
		{"no route", func(context.Context) error { return errors.New("no route to host") }, nil, class{unconnected: true}, 0},
		{"packets vanish", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}, nil, class{unconnected: true, timedOut: true}, 2 * time.Second},
		{"silence", nil, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, class{timedOut: true}, 4 * time.Second},
		{"reset", nil, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, class{}, 0},
		{"status 500", nil, status(500), class{}, 0},
		{"status 401", nil, status(401), class{refused: true}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := in(t, tt.handler)
				if tt.dial != nil {
					cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, tt.dial(ctx) }
				}
				c, err := upstream.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer c.CloseIdleConnections()
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
				defer cancel()
				_, err = c.Narinfo(ctx, hashPart(t))
				got := class{upstream.Unconnected(err), upstream.TimedOut(err), upstream.Refused(err)}
				if err == nil || got != tt.want || time.Since(begin) != tt.took {
					t.Errorf("%v after %v: %+v, want %+v after %v", err, time.Since(begin), got, tt.want, tt.took)
				}
			})
		})
	}
	t.Run("a certificate of somebody else", func(t *testing.T) {
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
		server.StartTLS()
		defer server.Close()
		c, err := upstream.New(upstream.Config{URL: strings.Replace(server.URL, "127.0.0.1", "localhost", 1)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Narinfo(t.Context(), hashPart(t)); !upstream.Unconnected(err) {
			t.Error(err)
		}
	})
}

func TestFilter(t *testing.T) {
	text, _, info := genuine(t)
	name := info.StorePath.Name()
	for _, tt := range []struct {
		include, exclude []string
		want             bool
	}{
		{nil, nil, true},
		{[]string{"*"}, nil, true},
		{[]string{"x", name[:3] + "*"}, nil, true},
		{[]string{name}, []string{"x"}, true},
		{[]string{"x"}, nil, false},
		{nil, []string{"x", name}, false},
		{[]string{name}, []string{name}, false},
	} {
		c := client(t, upstream.Config{Include: tt.include, Exclude: tt.exclude}, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) })
		_, err := c.Narinfo(t.Context(), hashPart(t))
		if absent := errors.Is(err, upstream.ErrFiltered) && errors.Is(err, upstream.ErrAbsent); absent == tt.want || (err == nil) != tt.want || c.Wants(name) != tt.want {
			t.Errorf("include %q, exclude %q: %v, want the record: %v", tt.include, tt.exclude, err, tt.want)
		}
	}
}

func TestProbe(t *testing.T) {
	for body, ok := range map[string]bool{
		"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n": true,
		"WantMassQuery: 1\nStoreDir: /nix/store":                 true,
		"StoreDir: /gnu/store\n":                                 false,
		"<html>Please log in</html>\n":                           false,
		"":                                                       false,
	} {
		c := client(t, upstream.Config{URL: "/sub"}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/sub/nix-cache-info" {
				t.Errorf("asked for %s", r.URL)
			}
			_, _ = w.Write([]byte(body))
		})
		if err := c.Probe(t.Context()); (err == nil) != ok {
			t.Errorf("%q: %v", body, err)
		}
	}
}
