package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

const (
	// maxPaths bounds one request; p2pctl splits longer lists.
	maxPaths = 1000
	// maxBody has room for maxPaths store paths.
	maxBody = maxPaths * 300
	// findTimeout is how long providers are looked for. A lookup that finds
	// nothing takes about a second, one on bad links some ten.
	findTimeout = time.Minute
	// actionTimeout bounds every other request but those to the cache.
	actionTimeout = time.Minute
)

// Node is the running daemon.
type Node interface {
	Status() Status
	Config() Config
	// Reload reads the settings again. Where they have a mistake none changes.
	Reload() (*Reloaded, error)
	Peers() ([]Peer, error)
	Contacts
	// Provide shares paths, also such as were withdrawn, and announces them. It
	// returns an error or nil for each, in their order.
	Provide(ctx context.Context, paths []nix.StorePath) []error
	// Withdraw stops sharing paths until they are provided again.
	Withdraw(ctx context.Context, paths []nix.StorePath) []error
	// Explain tells what is known of a store path, given by its hash part, and
	// why a request for it would hit or miss.
	Explain(ctx context.Context, target Target) (*explain.Path, error)
	// Find resolves the target and returns the providers as they turn up,
	// until there are no more or ctx ends.
	Find(ctx context.Context, target Target) (*Found, iter.Seq[Provider], error)
	Closures
	Signer
	Observed
}

// NewHandler serves the control API for node; cache and metrics are served
// below their paths. When ctx ends so do the requests to node, but not those to
// the cache: transfers are drained. The server needs WithCaller.
func NewHandler(ctx context.Context, node Node, cache, metrics http.Handler, log *zap.Logger) http.Handler {
	h := &handler{node: node, log: log.Named("control")}
	api := http.NewServeMux()
	api.HandleFunc("GET /v1/status", h.answer(func(*http.Request) (any, error) { return node.Status(), nil }))
	api.HandleFunc("GET /v1/config", h.answer(func(*http.Request) (any, error) { return node.Config(), nil }))
	api.HandleFunc("POST /v1/config/reload", h.answer(func(*http.Request) (any, error) { return node.Reload() }))
	api.HandleFunc("GET /v1/peers", h.answer(func(*http.Request) (any, error) { return node.Peers() }))
	api.HandleFunc("POST /v1/peers/connect", h.answer(func(r *http.Request) (any, error) { return connect(r, node) }))
	api.HandleFunc("POST /v1/peers/ping", h.answer(func(r *http.Request) (any, error) { return pingPeer(r, node) }))
	api.HandleFunc("POST /v1/peers/bench", h.answer(func(r *http.Request) (any, error) { return benchPeer(r, node) }))
	api.HandleFunc("GET /v1/peers/banned", h.answer(func(*http.Request) (any, error) { return node.Bans() }))
	api.HandleFunc("POST /v1/peers/ban", h.answer(func(r *http.Request) (any, error) { return ban(r, node) }))
	api.HandleFunc("POST /v1/peers/unban", h.answer(func(r *http.Request) (any, error) { return unban(r, node) }))
	api.HandleFunc("POST /v1/provide", h.answer(func(r *http.Request) (any, error) { return forPaths(r, node.Provide) }))
	api.HandleFunc("POST /v1/withdraw", h.answer(func(r *http.Request) (any, error) { return forPaths(r, node.Withdraw) }))
	api.HandleFunc("POST /v1/records", h.answer(h.records))
	api.HandleFunc("POST /v1/signatures", h.answer(h.sign))
	api.HandleFunc("GET /v1/explain", h.answer(func(r *http.Request) (any, error) { return explainTarget(r, node) }))
	api.HandleFunc("GET /v1/find", h.find)
	api.HandleFunc("POST /v1/upgrade-plan", tellClosure(h, node.UpgradePlan))
	api.HandleFunc("POST /v1/health", tellClosure(h, node.Health))
	api.HandleFunc("GET /v1/events", h.events)
	api.HandleFunc("GET /v1/stats", h.answer(func(r *http.Request) (any, error) { return stats(r, node) }))
	api.HandleFunc("POST /v1/pause", h.answer(func(r *http.Request) (any, error) { return pause(r, node) }))
	api.HandleFunc("POST /v1/resume", h.answer(func(*http.Request) (any, error) { return node.Resume() }))
	api.HandleFunc("GET /v1/dashboard", h.answer(func(*http.Request) (any, error) { return node.Dashboard(), nil }))
	mux := http.NewServeMux()
	mux.Handle("/v1/", endWith(ctx, api))
	mux.Handle("/debug/pprof/", endWith(ctx, profiles()))
	mux.Handle("/cache/", http.StripPrefix("/cache", cache))
	mux.Handle("GET /metrics", metrics)
	return h.forOwners(mux)
}

// profiles serves Go's profiles of the daemon: "go tool pprof" reads them. They
// show what is in memory, and are here alone.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// endWith ends requests to h when ctx ends.
func endWith(ctx context.Context, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		h.ServeHTTP(w, r.WithContext(request))
	})
}

type handler struct {
	node Node
	log  *zap.Logger
}

// answer makes a handler that writes what f returns as JSON.
func (h *handler) answer(f func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v, err := f(r.WithContext(ctx))
		if err != nil {
			h.refuse(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		h.write(w, r, v)
	}
}

// write encodes v as one line. An error means that the client has gone.
func (h *handler) write(w http.ResponseWriter, r *http.Request, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		h.log.Debug("answer not delivered", zap.String("path", r.URL.Path), zap.Error(err))
	}
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	refusal := asError(err)
	h.log.Debug("refused", zap.String("path", r.URL.Path), zap.Int("status", refusal.Status), zap.Error(err))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(refusal.Status)
	h.write(w, r, refusal)
}

func asError(err error) *Error {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal
	}
	if errors.Is(err, narstore.ErrNotFound) {
		return &Error{Status: http.StatusNotFound, Message: err.Error()}
	}
	return &Error{Status: http.StatusInternalServerError, Message: err.Error()}
}

func badRequest(format string, args ...any) error {
	return &Error{Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

// explainTarget explains the path that a request names.
func explainTarget(r *http.Request, node Node) (*explain.Path, error) {
	target, err := ParseTarget(r.URL.Query().Get("target"))
	switch {
	case err != nil:
		return nil, badRequest("%v", err)
	case target.IsHash:
		return nil, badRequest("explain wants a store path or its hash part, and not the hash of a NAR")
	}
	return node.Explain(r.Context(), target)
}

// forPaths does do for the paths of a PathsRequest.
func forPaths(r *http.Request, do func(context.Context, []nix.StorePath) []error) (*PathsResponse, error) {
	paths, err := readPaths(r, maxPaths)
	if err != nil {
		return nil, err
	}
	response := &PathsResponse{Results: make([]PathResult, len(paths))}
	for i, err := range do(r.Context(), paths) {
		response.Results[i] = pathResult(paths[i], err)
	}
	return response, nil
}

// readPaths reads a PathsRequest of at most limit paths.
func readPaths(r *http.Request, limit int) ([]nix.StorePath, error) {
	var request PathsRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return nil, badRequest("request: %v", err)
	}
	return parsePaths(request.Paths, limit)
}

func parsePaths(texts []string, limit int) ([]nix.StorePath, error) {
	if len(texts) > limit {
		return nil, badRequest("%d paths in one request are more than %d", len(texts), limit)
	}
	paths := make([]nix.StorePath, len(texts))
	for i, text := range texts {
		path, err := nix.ParseStorePath(text)
		if err != nil {
			return nil, badRequest("%v", err)
		}
		paths[i] = path
	}
	return paths, nil
}

// pathResult says what became of a path. The path itself is not repeated in the
// error.
func pathResult(path nix.StorePath, err error) PathResult {
	result := PathResult{Path: path.String()}
	switch {
	case errors.Is(err, narstore.ErrNotFound):
		result.Error, result.NotFound = "this node's store does not have it", true
	case err != nil:
		result.Error = withoutPath(err, path)
	}
	return result
}

// withoutPath is what an error of packages share and vouch says about a path
// that stands beside it anyway.
func withoutPath(err error, path nix.StorePath) string {
	text := err.Error()
	for _, prefix := range []string{"share: ", "vouch: "} {
		text = strings.TrimPrefix(text, prefix+path.String()+": ")
	}
	return text
}

func (h *handler) find(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), findTimeout)
	defer cancel()
	target, err := ParseTarget(r.URL.Query().Get("target"))
	if err != nil {
		h.refuse(w, r, badRequest("%v", err))
		return
	}
	found, providers, err := h.node.Find(ctx, target)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	flush := http.NewResponseController(w).Flush
	send := func(event FindEvent) bool { return lines.Encode(event) == nil && flush() == nil }
	if !send(FindEvent{Found: found}) {
		return
	}
	for provider := range providers {
		if !send(FindEvent{Provider: &provider}) {
			return
		}
	}
	last := FindEvent{Done: true}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		last = FindEvent{Error: &Error{Status: http.StatusGatewayTimeout, Message: fmt.Sprintf("the search was ended after %v", findTimeout)}}
	case ctx.Err() != nil:
		last = FindEvent{Error: &Error{Status: http.StatusServiceUnavailable, Message: "nar-p2pd is stopping"}}
	}
	send(last)
}
