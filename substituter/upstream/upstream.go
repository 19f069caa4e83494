// Package upstream reads HTTP binary caches such as cache.nixos.org: narinfos,
// NARs (decompressed on the way), and the small files beside them.
//
// Nothing that it returns is verified. It only bounds what a broken or hostile
// cache can cost: sizes, memory, redirects, and time without progress. The
// rules of what means "absent" follow Nix's http-binary-cache-store.cc.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// connectTimeout covers name resolution and TCP. It is what the first
	// narinfo of an outage waits, and long enough for one lost packet: Linux
	// sends it again after 1 s.
	connectTimeout = 2 * time.Second
	tlsTimeout     = 5 * time.Second
	// headerTimeout is for NARs; narinfos have the deadline of their request.
	headerTimeout = 10 * time.Second
	idleTimeout   = 90 * time.Second
	maxRedirects  = 5
	maxHeader     = 64 << 10 // bytes
	// pingAfter is the silence on a connection of HTTP/2 after which it is tried,
	// and pingTimeout how long that may take. Without it a connection that a
	// laptop has lost in its sleep would be asked for many minutes.
	pingAfter    = 15 * time.Second
	pingTimeout  = 5 * time.Second
	maxCacheInfo = 4 << 10 // bytes
	// maxDrain bounds what is read of an error page so that its connection can
	// be used again, in bytes.
	maxDrain = 4 << 10
)

// Config describes one cache.
type Config struct {
	// URL is the cache's address, http or https. A user name and password in
	// it are sent to this host alone. Nix's store parameters (?priority=...)
	// are passed over.
	URL string
	// Priority orders caches: the lowest is asked first.
	Priority int
	// Keys are the public keys that this cache signs with, beside those that
	// are trusted anyway.
	Keys []narinfo.PublicKey
	// Private marks a cache whose contents strangers must not hear of. One that
	// wants credentials always is.
	Private bool
	// Netrc is a file with a login for the cache's host, in the form of Nix's
	// netrc-file; TokenFile one with a bearer token. At most one of them and of
	// a user in URL.
	Netrc, TokenFile string
	// Include and Exclude are patterns of path.Match for the names of store
	// paths. The cache counts as not having what no Include matches, if there
	// are any, or some Exclude does.
	Include, Exclude []string
	// Dial opens connections; nil means net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client asks one cache. It is safe for concurrent use.
type Client struct {
	base        *url.URL // without user, query and final slash
	private     bool
	credentials *credentials
	filter      filter
	http        *http.Client
	transport   renewable
}

// New checks cfg and returns a client. Nothing is asked yet.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		// The error of url.Parse repeats the URL, and with it the password.
		return nil, errors.New("upstream: the address is not a URL")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("upstream: %q is not an http or https address", u.Redacted())
	}
	c := &Client{base: &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}}
	if c.credentials, err = newCredentials(u, cfg.Netrc, cfg.TokenFile); err != nil {
		return nil, fmt.Errorf("upstream: %s: %w", c, err)
	}
	if c.filter, err = newFilter(cfg.Include, cfg.Exclude); err != nil {
		return nil, fmt.Errorf("upstream: %s: %w", c, err)
	}
	c.private = cfg.Private || c.credentials.any()
	c.transport.guard.own, c.transport.guard.lookup = c.base, net.DefaultResolver.LookupNetIP
	c.transport.dial, c.transport.dialOther = cfg.Dial, cfg.Dial
	if cfg.Dial == nil {
		c.transport.dial = (&net.Dialer{}).DialContext
		c.transport.dialOther = (&net.Dialer{ControlContext: c.transport.guard.check}).DialContext
	}
	c.transport.renew()
	c.http = &http.Client{Transport: &c.transport, CheckRedirect: c.checkRedirect}
	return c, nil
}

// checkRedirect lets a cache send us to its storage, but not from https to
// http, and not with the password.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if err := c.checkScheme(req.URL); err != nil {
		return err
	}
	if !c.ownHost(req.URL) {
		req.Header.Del("Authorization")
	}
	return nil
}

func (c *Client) checkScheme(u *url.URL) error {
	if u.Host == "" || u.Scheme != "https" && u.Scheme != c.base.Scheme {
		return fmt.Errorf("%s://%s is not an address that a cache at %s may point to", u.Scheme, u.Host, c)
	}
	return nil
}

func (c *Client) ownHost(u *url.URL) bool {
	return u.Scheme == c.base.Scheme && strings.EqualFold(u.Host, c.base.Host)
}

// String returns the cache's address without credentials. It is the cache's
// name in logs and in the state.
func (c *Client) String() string { return c.base.String() }

// Private reports whether the cache was marked private or has credentials.
func (c *Client) Private() bool { return c.private }

// Wants reports whether paths of this name are wanted from the cache.
func (c *Client) Wants(name string) bool { return c.filter.passes(name) }

// CloseIdleConnections closes connections that no request uses.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// Reconnect makes requests from now on open new connections. Those under way
// are left alone.
func (c *Client) Reconnect() { c.transport.renew() }

// Narinfo returns the cache's record of the path with this hash part, with
// nothing verified but its form.
func (c *Client) Narinfo(ctx context.Context, part nix.HashPart) (*narinfo.Info, error) {
	body, err := c.File(ctx, part.String()+".narinfo", narinfo.MaxSize)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("upstream: %s: narinfo %s: %w", c, part, err)
	}
	info, err := narinfo.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("upstream: %s: %w", c, err)
	}
	if info.StorePath.HashPart() != part {
		return nil, fmt.Errorf("upstream: %s: asked for %s, got %s", c, part, info.StorePath)
	}
	if !c.Wants(info.StorePath.Name()) {
		return nil, fmt.Errorf("%w of %s: %s", ErrFiltered, c, info.StorePath)
	}
	return info, nil
}

// Probe asks for the one file that every cache has, nix-cache-info.
func (c *Client) Probe(ctx context.Context) error {
	body, err := c.File(ctx, "nix-cache-info", maxCacheInfo)
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("upstream: %s: nix-cache-info: %w", c, err)
	}
	// Whatever else is at this address, such as a captive portal, is no cache.
	if !slices.Contains(strings.Split(string(text), "\n"), "StoreDir: "+nix.StoreDir) {
		return fmt.Errorf("upstream: %s: nix-cache-info is not that of a cache for %s", c, nix.StoreDir)
	}
	return nil
}

// File returns the file of this name below the cache's address, decoded. The
// name must be clean. Reading more than limit bytes is an error.
func (c *Client) File(ctx context.Context, name string, limit int64) (io.ReadCloser, error) {
	u := *c.base
	u.Path = path.Join("/", u.Path, name)
	s, err := c.open(ctx, request{url: &u, encodings: "zstd, gzip"}, limit)
	if err != nil {
		return nil, fmt.Errorf("upstream: %s: %s: %w", c, name, err)
	}
	s.plain = &limitedReader{r: s.plain, left: limit}
	return s, nil
}

// request is what is asked for.
type request struct {
	url *url.URL
	// offset is the first byte that is wanted.
	offset int64
	// encodings is the value of Accept-Encoding.
	encodings string
}

// get sends one request and returns a response whose status is 200, or 206
// where offset is not zero.
func (c *Client) get(ctx context.Context, r request) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "nar-p2p")
	req.Header.Set("Accept-Encoding", r.encodings)
	if r.offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", r.offset))
	}
	if c.ownHost(r.url) {
		authorization, err := c.credentials.authorization()
		if err != nil {
			return nil, err
		}
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent && r.offset > 0 {
		return resp, nil
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxDrain) // whatever comes: only for the connection's sake
	return nil, c.statusError(resp)
}

// limitedReader fails where io.LimitReader would pretend the end.
type limitedReader struct {
	r    io.Reader
	left int64 // bytes
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return n + int(l.left), errors.New("longer than allowed")
	}
	return n, err
}
