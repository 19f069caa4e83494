package delegated

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"time"
)

const (
	dialTimeout    = 4 * time.Second
	headerTimeout  = 8 * time.Second
	idleTimeout    = 90 * time.Second
	maxHeader      = 16 << 10 // bytes
	maxConnections = 8        // to one endpoint
	maxRedirects   = 3
)

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxConnsPerHost:        maxConnections,
		MaxIdleConnsPerHost:    maxConnections,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// sameHost lets an endpoint redirect within itself. Elsewhere it could send this
// machine to others that only it can reach.
func sameHost(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return errors.New("too many redirects")
	case r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme:
		return errors.New("redirected to another host")
	}
	return nil
}

// origin is what is to be known of where an answer comes from.
type origin struct {
	// nearby: from the local network, and not through a proxy.
	nearby bool
	// tag is that of the network which the endpoint serves, by its own word.
	tag string
}

// originKey is the key of a *origin in a request's context.
type originKey struct{}

// witness fills in the origin.
type witness struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (w witness) RoundTrip(r *http.Request) (*http.Response, error) {
	seen, ok := r.Context().Value(originKey{}).(*origin)
	if !ok {
		return w.RoundTripper.RoundTrip(r)
	}
	var remote net.Addr
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { remote = info.Conn.RemoteAddr() }}
	response, err := w.RoundTripper.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		return nil, err
	}
	proxy, err := http.ProxyFromEnvironment(r)
	seen.nearby = err == nil && proxy == nil && remote != nil && isNearby(remote.String())
	seen.tag = response.Header.Get(networkHeader)
	return response, nil
}

// isNearby reports whether an address is one of the local network.
func isNearby(address string) bool {
	ap, err := netip.ParseAddrPort(address)
	ip := ap.Addr().Unmap()
	return err == nil && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast())
}
