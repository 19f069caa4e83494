// Package web is what a browser sees of the node, on the same port as the binary
// cache: the dashboard, and beside it what monitoring asks for.
//
// The page and all that it needs are embedded. It is live by one stream of
// server-sent events (stream.go), and only reads, but for the switch that pauses
// sharing: that wants a token which the control socket alone gives away. Other
// sites, other names of this server and other machines get nothing; the page
// itself may load nothing from elsewhere, and run nothing that is not a file of
// this package.
package web

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

const (
	// maxStreams bounds how many pages are open at once.
	maxStreams = 16
	// maxBody bounds what is posted, in bytes.
	maxBody = 4 << 10
	// explainTimeout is longer than an explanation takes.
	explainTimeout = 30 * time.Second
)

// Node is what the dashboard shows.
type Node interface {
	control.Observed
	Status() control.Status
	Peers() ([]control.Peer, error)
	Explain(ctx context.Context, target control.Target) (*explain.Path, error)
	// Flights are the fetches under way.
	Flights() []explain.Flight
	// Problems are the last ones, the latest last.
	Problems() []events.Event
	// Lately is the traffic of late, and Since that of each second after a time.
	Lately() meter.Lately
	Since(t time.Time) meter.Series
	// Unready says why the node does not work yet, or any more; "" if it does.
	Unready() string
}

// Dashboard serves it.
type Dashboard struct {
	node    Node
	token   string
	log     *zap.Logger
	streams chan struct{} // has a value for each that is open
	mux     *http.ServeMux
}

// New returns a dashboard whose streams end with ctx. With the token the page may
// pause sharing. Metrics is served below /metrics.
func New(ctx context.Context, node Node, token string, metrics http.Handler, log *zap.Logger) *Dashboard {
	d := &Dashboard{
		node: node, token: token, log: log.Named("web"), streams: make(chan struct{}, maxStreams), mux: http.NewServeMux(),
	}
	d.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
	d.mux.HandleFunc("GET /readyz", d.ready)
	own := http.NewServeMux()
	own.Handle("GET /{$}", static())
	own.Handle("GET /dashboard/", static())
	own.HandleFunc("GET /dashboard/stream", func(w http.ResponseWriter, r *http.Request) { d.stream(ctx, w, r) })
	own.HandleFunc("GET /dashboard/explain", d.explain)
	own.HandleFunc("POST /dashboard/pause", d.authorised(d.pause))
	own.HandleFunc("POST /dashboard/resume", d.authorised(func(*http.Request) (any, error) { return node.Resume() }))
	own.Handle("GET /metrics", metrics)
	d.mux.Handle("/", fromThisMachine(own))
	return d
}

// Handler serves the dashboard behind guard, and everything else by cache.
func (d *Dashboard) Handler(cache http.Handler, guard func(http.Handler) http.Handler) http.Handler {
	guarded := guard(d.mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/", path == "/metrics", path == "/healthz", path == "/readyz", strings.HasPrefix(path, "/dashboard/"):
			secure(w.Header())
			guarded.ServeHTTP(w, r)
		default:
			cache.ServeHTTP(w, r)
		}
	})
}

// secure sets the headers by which browsers keep the page to itself.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cache-Control", "no-store")
}

// fromThisMachine refuses what comes over a network, where the cache may be open
// to others: what a machine fetches is its own affair.
func fromThisMachine(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remote, err := netip.ParseAddrPort(r.RemoteAddr)
		local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		own := err == nil && (remote.Addr().Unmap().IsLoopback() || local != nil && local.AddrPort().Addr().Unmap() == remote.Addr().Unmap())
		if !own {
			writeText(w, http.StatusForbidden, "for this machine alone")
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (d *Dashboard) ready(w http.ResponseWriter, _ *http.Request) {
	if why := d.node.Unready(); why != "" {
		writeText(w, http.StatusServiceUnavailable, why)
		return
	}
	writeText(w, http.StatusOK, "ready")
}

func (d *Dashboard) explain(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), explainTimeout)
	defer cancel()
	target, err := control.ParseTarget(r.URL.Query().Get("target"))
	if err == nil && target.IsHash {
		err = errors.New("a store path or its hash part is wanted, and not the hash of a NAR")
	}
	if err != nil {
		d.answer(w, nil, &control.Error{Status: http.StatusBadRequest, Message: err.Error()})
		return
	}
	told, err := d.node.Explain(ctx, target)
	d.answer(w, told, err)
}

func (d *Dashboard) pause(r *http.Request) (any, error) {
	var request control.PauseRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return nil, &control.Error{Status: http.StatusBadRequest, Message: "request: " + err.Error()}
	}
	return control.Pause(d.node, request)
}

// authorised wants the token of whoever posts.
func (d *Dashboard) authorised(do func(*http.Request) (any, error)) http.HandlerFunc {
	want := []byte("Bearer " + d.token)
	return func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		switch {
		case subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1:
			w.Header().Set("WWW-Authenticate", "Bearer")
			d.answer(w, nil, &control.Error{Status: http.StatusUnauthorized, Message: "the page may only read", Hint: "open it with: p2pctl dashboard"})
		case origin != "" && origin != "http://"+r.Host:
			d.answer(w, nil, &control.Error{Status: http.StatusForbidden, Message: "no requests from other sites"})
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			v, err := do(r)
			d.answer(w, v, err)
		}
	}
}

// answer writes v, or the error, as JSON.
func (d *Dashboard) answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		refusal, ok := errors.AsType[*control.Error](err)
		if !ok {
			refusal = &control.Error{Status: http.StatusInternalServerError, Message: err.Error()}
		}
		w.WriteHeader(refusal.Status)
		v = refusal
	}
	if err := json.NewEncoder(w).Encode(v); err != nil {
		d.log.Debug("answer not delivered", zap.Error(err))
	}
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // a client that has gone is no concern of ours
}
