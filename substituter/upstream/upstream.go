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
	"strings"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// ErrAbsent is the cache's own word that it does not have the file. Every other
// error means that the cache could not be asked, or talks nonsense, as a
// captive portal does.
var ErrAbsent = errors.New("upstream: absent")

const (
	// connectTimeout covers one TCP connection attempt. A narinfo has 5 s in
	// all, so a black hole must be noticed before that.
	connectTimeout = 3 * time.Second
	tlsTimeout     = 5 * time.Second
	// headerTimeout is for NARs; narinfos have the deadline of their request.
	headerTimeout = 10 * time.Second
	idleTimeout   = 90 * time.Second
	maxRedirects  = 5
	maxHeader     = 64 << 10 // bytes
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
	// Keys are the public keys that this cache signs with, beside those that
	// are trusted anyway.
	Keys []narinfo.PublicKey
	// Private marks a cache whose contents strangers must not hear of.
	Private bool
}

// Client asks one cache. It is safe for concurrent use.
type Client struct {
	base    *url.URL // without user, query and final slash
	user    *url.Userinfo
	private bool
	http    *http.Client
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
	c := &Client{
		base:    &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")},
		user:    u.User,
		private: cfg.Private || u.User != nil,
	}
	c.http = &http.Client{Transport: newTransport(), CheckRedirect: c.checkRedirect}
	return c, nil
}

func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: connectTimeout}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    tlsTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    32, // Nix asks 25 narinfos at once
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // package decompress knows more encodings, and bounds them
	}
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
		return fmt.Errorf("%q is not an address that a cache at %s may point to", u.Redacted(), c)
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

// CloseIdleConnections closes connections that no request uses.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

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
	return info, nil
}

// File returns the file of this name below the cache's address, decoded. The
// name must be clean. Reading more than limit bytes is an error.
func (c *Client) File(ctx context.Context, name string, limit int64) (io.ReadCloser, error) {
	u := *c.base
	u.Path = path.Join("/", u.Path, name)
	s, err := c.open(ctx, &u, 0, limit)
	if err != nil {
		return nil, fmt.Errorf("upstream: %s: %s: %w", c, name, err)
	}
	s.plain = &limitedReader{r: s.plain, left: limit}
	return s, nil
}

// get sends one request and returns a response whose status is 200, or 206
// where offset is not zero.
func (c *Client) get(ctx context.Context, u *url.URL, offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "nar-p2p")
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	if c.user != nil && c.ownHost(u) {
		password, _ := c.user.Password()
		req.SetBasicAuth(c.user.Username(), password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent && offset > 0 {
		return resp, nil
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxDrain) // whatever comes: only for the connection's sake
	return nil, c.statusError(resp.StatusCode)
}

// statusError tells absent from broken. S3 says 403 for a missing file where
// listing is not allowed; but from a private cache 403 can as well mean that
// our password has expired, and then we know nothing.
func (c *Client) statusError(status int) error {
	switch {
	case status == http.StatusNotFound, status == http.StatusGone:
		return ErrAbsent
	case status == http.StatusForbidden && !c.private:
		return ErrAbsent
	}
	return fmt.Errorf("status %d", status)
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
