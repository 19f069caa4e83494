package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// A cache was taken over, and sends those that ask it to what only they can reach:
// by a redirect, by a record's URL, by a name. Nothing arrives there.
func TestCacheMayNotPointInside(t *testing.T) {
	var inside atomic.Int32
	secret := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer secret.Close()
	_, port, _ := net.SplitHostPort(secret.Listener.Addr().String())
	for _, target := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		target = "http://" + target + ":" + port + "/latest/meta-data"
		hijacked := httptest.NewServer(http.RedirectHandler(target, http.StatusFound))
		defer hijacked.Close()
		for name, own := range map[string]string{"on the internet": "11.0.0.1", "on the local network": "10.0.0.1"} {
			c, err := New(Config{URL: "http://cache.example.org"})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseIdleConnections()
			c.transport.guard.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr(own)}, nil
			}
			c.transport.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, hijacked.Listener.Addr().String())
			}
			if _, err := c.File(t.Context(), "nix-cache-info", 1000); !errors.Is(err, errOutOfScope) {
				t.Errorf("a cache %s that redirects to %s: %v", name, target, err)
			}
			info := &narinfo.Info{URL: target, Compression: "none", NARSize: 10}
			if _, err := c.OpenNAR(t.Context(), info, 0); !errors.Is(err, errOutOfScope) {
				t.Errorf("a cache %s whose record names %s: %v", name, target, err)
			}
		}
	}
	if n := inside.Load(); n != 0 {
		t.Errorf("%d requests have arrived inside", n)
	}

	// One of this machine may point to another.
	near := httptest.NewServer(http.RedirectHandler(secret.URL, http.StatusFound))
	defer near.Close()
	c, err := New(Config{URL: near.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	body, err := c.File(t.Context(), "x", 1000)
	if err != nil || inside.Load() != 1 {
		t.Fatalf("a cache of this machine that points to another: %v, %d requests", err, inside.Load())
	}
	body.Close()
}

func TestScopes(t *testing.T) {
	for text, want := range map[string]scope{
		"127.0.0.1": machine, "127.9.9.9": machine, "::1": machine, "0.0.0.0": machine, "::": machine, "::ffff:127.0.0.1": machine,
		"169.254.169.254": link, "fe80::1": link, "::ffff:169.254.169.254": link, "224.0.0.1": link,
		"10.1.2.3": site, "172.16.0.1": site, "192.168.1.1": site, "fd00:ec2::254": site, "100.64.0.1": site,
		"151.101.1.91": everywhere, "2a04:4e42::347": everywhere, "172.32.0.1": everywhere,
	} {
		if got := scopeOf(netip.MustParseAddr(text)); got != want {
			t.Errorf("scopeOf(%s) = %v, want %v", text, got, want)
		}
	}
}
