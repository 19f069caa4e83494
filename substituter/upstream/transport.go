package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
)

// renewable is a transport that can leave its connections behind.
type renewable struct {
	// dial connects with the cache itself and with proxies, dialOther with what its
	// answers have named.
	dial, dialOther dialFunc
	guard           guard
	current         atomic.Pointer[http.Transport]
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// RoundTrip implements http.RoundTripper.
func (r *renewable) RoundTrip(req *http.Request) (*http.Response, error) {
	return r.current.Load().RoundTrip(req)
}

// CloseIdleConnections is what http.Client looks for.
func (r *renewable) CloseIdleConnections() { r.current.Load().CloseIdleConnections() }

func (r *renewable) renew() {
	if old := r.current.Swap(r.newTransport()); old != nil {
		old.CloseIdleConnections()
	}
}

func (r *renewable) newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  r.guard.proxy,
		DialContext:            r.connect,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		TLSHandshakeTimeout:    tlsTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    96, // Nix asks 25 narinfos at once, and up to 96 are looked up ahead
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // package decompress knows more encodings, and bounds them
	}
}

func (r *renewable) connect(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	dial := r.dialOther
	if r.guard.known(address) {
		dial = r.dial
	}
	conn, err := dial(ctx, network, address)
	if errors.Is(err, errOutOfScope) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", errConnect, err)
	}
	return conn, nil
}
