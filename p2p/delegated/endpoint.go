package delegated

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	boxo "github.com/ipfs/boxo/routing/http/client"
	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	mh "github.com/multiformats/go-multihash"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

const (
	// maxRequests bounds the requests to one endpoint at once, and
	// requestTimeout each of them. A search in a DHT, which an endpoint may have to
	// make, takes up to a few seconds.
	maxRequests    = 16
	requestTimeout = 8 * time.Second
	// maxAnswer is in bytes: ten times what routing.MaxProviders with maxAddresses take.
	maxAnswer = 256 << 10
	// An endpoint that fails is left alone for firstRest, and then ever longer up
	// to lastRest.
	firstRest = time.Second
	lastRest  = time.Minute
	// checkTTL is how long an endpoint is believed to serve the network that it
	// has said it does. Every answer says so again.
	checkTTL = 10 * time.Minute
)

var errOtherNetwork = errors.New("does not serve this network")

// EndpointStatus says how an endpoint is.
type EndpointStatus struct {
	// URL is without the password.
	URL string
	// Usable is false while the endpoint is left alone.
	Usable bool
	// Problem is what went wrong the last time, or nil.
	Problem error
}

// endpoint is one server.
type endpoint struct {
	name string
	// tag is that of the network which the endpoint must serve, or "" for any.
	tag       string
	addresses func([]ma.Multiaddr) []ma.Multiaddr
	client    *boxo.Client
	log       *zap.Logger
	slots     chan struct{}

	// checking has room for whoever asks the endpoint for its network.
	checking chan struct{}

	mu sync.Mutex
	// problem is what went wrong for the failures-th time in a row; until when the
	// endpoint is left alone.
	problem  error
	failures int
	until    time.Time
	// checked is when the endpoint has last said that it serves the network.
	checked time.Time
}

func newEndpoint(text string, cfg *Config, transport http.RoundTripper, log *zap.Logger) (*endpoint, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("an endpoint's URL is malformed") // It may have a password.
	}
	e := &endpoint{
		name:      u.Redacted(),
		addresses: cfg.Addresses,
		slots:     make(chan struct{}, maxRequests),
		checking:  make(chan struct{}, 1),
	}
	e.log = log.With(zap.String("endpoint", e.name))
	if cfg.Network != "" {
		e.tag = networkTag(cfg.Network)
	}
	limited := &boxo.ResponseBodyLimitedTransport{RoundTripper: witness{transport}, LimitBytes: maxAnswer, UserAgent: cfg.UserAgent}
	e.client, err = boxo.New(text,
		boxo.WithHTTPClient(&http.Client{Transport: limited, CheckRedirect: sameHost}),
		// That a provider speaks nar-p2p is told by nobody.
		boxo.WithProtocolFilter(nil), boxo.WithDisabledLocalFiltering(true),
	)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.name, err)
	}
	return e, nil
}

func (e *endpoint) status() EndpointStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	return EndpointStatus{URL: e.name, Usable: !time.Now().Before(e.until), Problem: e.problem}
}

// Size implements routing.Router.
func (e *endpoint) Size() int {
	if e.status().Usable {
		return 1
	}
	return 0
}

// FindProviders implements routing.Router.
func (e *endpoint) FindProviders(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		select {
		case e.slots <- struct{}{}:
			defer func() { <-e.slots }()
		case <-ctx.Done():
			return
		}
		if e.status().Usable && e.serves(ctx) {
			e.settle(ctx, e.ask(ctx, key, yield))
		}
	}
}

// serves reports whether the endpoint serves the network, after having asked it
// so where that is not known: with a key that says nothing.
func (e *endpoint) serves(ctx context.Context) bool {
	if e.tag == "" {
		return true
	}
	select {
	case e.checking <- struct{}{}:
		defer func() { <-e.checking }()
	case <-ctx.Done():
		return false
	}
	e.mu.Lock()
	known, resting := time.Since(e.checked) < checkTTL, time.Now().Before(e.until)
	e.mu.Unlock()
	if known || resting {
		return known && !resting
	}
	err := e.ask(ctx, nothing, func(peer.AddrInfo) bool { return false })
	e.settle(ctx, err)
	return err == nil
}

// nothing is a key that nobody provides.
var nothing = cid.NewCidV1(cid.Raw, mh.Multihash("\x12\x20nar-p2p asks for nothing at all."))

// ask makes one request and hands what the endpoint says to yield, until that
// has enough.
func (e *endpoint) ask(ctx context.Context, key cid.Cid, yield func(peer.AddrInfo) bool) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var seen origin
	records, err := e.client.FindProviders(context.WithValue(ctx, originKey{}, &seen), key)
	if err != nil {
		return plain(err)
	}
	defer records.Close()
	if e.tag != "" && seen.tag != e.tag {
		return errOtherNetwork
	}
	for n := 0; n < routing.MaxProviders && records.Next(); n++ {
		result := records.Val()
		if result.Err != nil {
			return result.Err
		}
		if info, ok := e.provider(result.Val, &seen); ok && !yield(info) {
			return nil
		}
	}
	return nil
}

// plain leaves out of an error what was asked for, and what a server writes.
func plain(err error) error {
	if refused, ok := errors.AsType[*boxo.HTTPError](err); ok {
		return fmt.Errorf("HTTP status %d", refused.StatusCode)
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err
	}
	return err
}

// provider checks what an endpoint says of a provider.
func (e *endpoint) provider(record types.Record, seen *origin) (peer.AddrInfo, bool) {
	r, ok := record.(*types.PeerRecord)
	if !ok || r.ID == nil || r.ID.Validate() != nil {
		return peer.AddrInfo{}, false
	}
	info := peer.AddrInfo{ID: *r.ID}
	for _, a := range r.Addrs[:min(len(r.Addrs), maxAddresses)] {
		if a.Multiaddr == nil {
			continue
		}
		addr, id := peer.SplitAddr(a.Multiaddr)
		if len(addr) > 0 && (id == "" || id == info.ID) {
			info.Addrs = append(info.Addrs, addr)
		}
	}
	if e.addresses != nil {
		info.Addrs = e.addresses(info.Addrs)
	}
	if e.tag == "" && !seen.nearby {
		// Who is far away must not make this machine dial its neighbours.
		info.Addrs = slices.DeleteFunc(info.Addrs, func(a ma.Multiaddr) bool { return !manet.IsPublicAddr(a) })
	}
	return info, true
}

// settle takes note of how a request went.
func (e *endpoint) settle(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return // Nobody waited for it.
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.problem, e.failures, e.checked = nil, 0, time.Now()
		return
	}
	if e.failures == 0 {
		e.log.Warn("routing endpoint is left alone for a while", zap.Error(err))
	}
	rest := min(firstRest<<min(e.failures, 10), lastRest)
	e.problem, e.failures, e.checked = err, e.failures+1, time.Time{}
	e.until = time.Now().Add(rest/2 + rand.N(rest))
}
