package lab

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Tap stands between a client and a substituter, and notes what passes.
type Tap struct {
	// URL is the substituter as it is to be used.
	URL string

	mu        sync.Mutex
	exchanges []*Exchange
}

// Exchange is a request and its answer.
type Exchange struct {
	Method, Path string
	// Status is 0 where the substituter closed the connection without one.
	Status int
	// Took is the time until the answer began.
	Took time.Duration
	// Bytes counts the body's. Broken tells that it did not come to its end.
	Bytes  int64
	Broken bool

	began time.Time
}

// Tap passes requests on to the substituter at target.
func (l *Lab) Tap(target string) *Tap {
	l.t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	port, err := newPort()
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	listener, err := port.listen()
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	t := &Tap{URL: "http://" + port.addr}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	quiet := zap.NewStdLog(zap.NewNop())
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:      transport,
		FlushInterval:  -1,
		ErrorLog:       quiet,
		ModifyResponse: t.answered,
		// The client sees what the substituter did.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := &http.Server{ErrorLog: quiet, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.ServeHTTP(w, t.begin(r))
	})}
	go func() { _ = server.Serve(listener) }() // Always ErrServerClosed.
	l.t.Cleanup(func() {
		_ = server.Close()
		transport.CloseIdleConnections()
		port.close()
	})
	return t
}

// Exchanges returns what has passed so far, of the files of these kinds, in the
// order in which it was asked for.
func (t *Tap) Exchanges(kinds Kind) []Exchange {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []Exchange
	for _, e := range t.exchanges {
		if kindOf(e.Path)&kinds != 0 {
			found = append(found, *e)
		}
	}
	return found
}

// exchangeKey is where a request's context keeps its exchange.
type exchangeKey struct{}

func (t *Tap) begin(r *http.Request) *http.Request {
	e := &Exchange{Method: r.Method, Path: r.URL.Path, began: time.Now()}
	t.mu.Lock()
	t.exchanges = append(t.exchanges, e)
	t.mu.Unlock()
	return r.WithContext(context.WithValue(r.Context(), exchangeKey{}, e))
}

func (t *Tap) answered(resp *http.Response) error {
	e, ok := resp.Request.Context().Value(exchangeKey{}).(*Exchange)
	if !ok {
		return errors.New("an answer to no request")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e.Status, e.Took = resp.StatusCode, time.Since(e.began)
	resp.Body = &tappedBody{ReadCloser: resp.Body, tap: t, e: e}
	return nil
}

// tappedBody counts.
type tappedBody struct {
	io.ReadCloser
	tap *Tap
	e   *Exchange
}

func (b *tappedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.tap.mu.Lock()
	defer b.tap.mu.Unlock()
	b.e.Bytes += int64(n)
	b.e.Broken = err != nil && !errors.Is(err, io.EOF)
	return n, err
}
