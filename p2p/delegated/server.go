package delegated

import (
	"context"
	"iter"
	"net/http"
	"strings"
	"time"

	boxo "github.com/ipfs/boxo/routing/http/server"
	"github.com/ipfs/boxo/routing/http/types"
	boxoiter "github.com/ipfs/boxo/routing/http/types/iter"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

const (
	// maxServed bounds the requests that are served at once.
	maxServed = 256
	// serveTimeout bounds each of them; some clients wait no longer than 10 s.
	serveTimeout = 9 * time.Second
	// maxKey is the longest CID that is looked at, in characters: base-58 takes
	// quadratic time. Those of this project have 59.
	maxKey = 128
)

// providersPath is the one path that is served; a CID follows.
const providersPath = "/routing/v1/providers/"

// source tells who provides a key; a p2p.Node does.
type source interface {
	// Providers gives only what the network's DHT says and what this node itself
	// shares, until ctx ends.
	Providers(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo]
}

// ServerConfig says how to answer.
type ServerConfig struct {
	// Network is the name of a private network, or "" for the public one.
	Network string
	// Registerer receives metrics. Nil: none are made.
	Registerer prometheus.Registerer
}

// Handler answers GET /routing/v1/providers/{cid}, for as many clients as come.
type Handler struct {
	network string
	next    http.Handler
	slots   chan struct{}
}

// NewHandler returns a Handler that answers from a source.
func NewHandler(s source, cfg *ServerConfig) *Handler {
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry() // It takes the global one otherwise.
	}
	network := cfg.Network
	return &Handler{
		network: network,
		next: boxo.Handler(&router{lookups: newLookups(s)},
			boxo.WithPrometheusRegistry(cfg.Registerer),
			boxo.WithRoutingTimeout(serveTimeout),
			boxo.WithRecordsLimit(routing.MaxProviders), boxo.WithStreamingRecordsLimit(routing.MaxProviders),
		),
		slots: make(chan struct{}, maxServed),
	}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tag := networkTag("public")
	if h.network != "" {
		tag = networkTag(h.network)
		w = &uncached{ResponseWriter: w}
	}
	w.Header().Set(networkHeader, tag)
	key, ok := strings.CutPrefix(r.URL.Path, providersPath)
	switch {
	case !fromProgram(r):
		http.Error(w, "for programs, not for pages of other sites", http.StatusForbidden)
	case !ok && strings.HasPrefix(r.URL.Path, "/routing/v1/"):
		http.Error(w, "only "+providersPath+"{cid} is served", http.StatusNotImplemented)
	case !ok || key == "" || strings.Contains(key, "/"):
		http.NotFound(w, r)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", "GET")
		http.Error(w, "read-only", http.StatusMethodNotAllowed)
	case len(key) > maxKey:
		http.Error(w, "not a CID", http.StatusBadRequest)
	default:
		h.serve(w, r)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too busy", http.StatusServiceUnavailable)
		return
	}
	// In a private network whoever may ask is a member, wherever it is.
	nearby := h.network != "" || isNearby(r.RemoteAddr)
	h.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), nearbyKey{}, nearby)))
}

// fromProgram reports whether no web page has made the request. Browsers say so.
// A page could otherwise get at an endpoint that only its reader can reach.
func fromProgram(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "" || site == "none"
}

// nearbyKey is the key of a bool in a request's context: whether who asks may
// have addresses of the local network.
type nearbyKey struct{}

// router is what boxo's server asks. Of the interface only FindProviders is there:
// Handler lets through nothing else.
type router struct {
	boxo.DelegatedRouter
	lookups *lookups
}

var _ boxo.DelegatedRouter = (*router)(nil)

// FindProviders implements boxo's DelegatedRouter.
func (r *router) FindProviders(ctx context.Context, key cid.Cid, _ int) (boxoiter.ResultIter[types.Record], error) {
	sum, ok := routing.Digest(key)
	if !ok {
		// Nobody provides it here: NARs and narinfos have keys of another kind.
		return boxoiter.FromSlice[boxoiter.Result[types.Record]](nil), nil
	}
	nearby, _ := ctx.Value(nearbyKey{}).(bool)
	next, stop := iter.Pull(r.lookups.providers(ctx, sum))
	return &records{next: next, stop: stop, nearby: nearby}, nil
}

// records turns providers into records.
type records struct {
	next   func() (peer.AddrInfo, bool)
	stop   func()
	nearby bool
	record *types.PeerRecord
}

// Next implements boxo's Iter.
func (r *records) Next() bool {
	for {
		info, ok := r.next()
		if !ok {
			return false
		}
		addrs := info.Addrs
		if !r.nearby {
			// Addresses of the local network say nothing elsewhere, but much of it.
			addrs = ma.FilterAddrs(addrs, manet.IsPublicAddr)
		}
		if len(addrs) == 0 {
			continue
		}
		r.record = &types.PeerRecord{Schema: types.SchemaPeer, ID: &info.ID}
		for _, addr := range addrs[:min(len(addrs), maxAddresses)] {
			r.record.Addrs = append(r.record.Addrs, types.Multiaddr{Multiaddr: addr})
		}
		return true
	}
}

// Val implements boxo's Iter.
func (r *records) Val() boxoiter.Result[types.Record] {
	return boxoiter.Result[types.Record]{Val: r.record}
}

// Close implements boxo's Iter.
func (r *records) Close() error {
	r.stop()
	return nil
}
