package delegated_test

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/delegated"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// farAway is a host that only proxy leads to.
const farAway = "http://routing.example"

// proxy stands for the endpoint that the test at hand has far away.
var proxy struct {
	sync.Mutex
	http.Handler
}

func TestMain(m *testing.M) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.Lock()
		h := proxy.Handler
		proxy.Unlock()
		h.ServeHTTP(w, r)
	}))
	// The standard library reads it once.
	if err := os.Setenv("HTTP_PROXY", server.URL); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreCurrent(), // the proxy
		// Of a package that boxo imports: started at its initialisation.
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

// source is a DHT with records.
type source struct {
	mu      sync.Mutex
	records map[cid.Cid][]peer.AddrInfo
	asked   []cid.Cid
	// release, if not nil, lets a search go on, as often as something comes.
	release chan struct{}
	// cancelled counts the searches that were.
	cancelled int
}

func (s *source) Providers(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		s.mu.Lock()
		s.asked = append(s.asked, key)
		records := s.records[key]
		s.mu.Unlock()
		for _, info := range records {
			if s.release != nil {
				select {
				case <-s.release:
				case <-ctx.Done():
					s.mu.Lock()
					defer s.mu.Unlock()
					s.cancelled++
					return
				}
			}
			if !yield(info) {
				return
			}
		}
	}
}

// searches returns the keys that were asked for since the last time.
func (s *source) searches() []cid.Cid {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func key(n byte) cid.Cid { return routing.ContentKey(nix.NARHash{n}) }

// provider makes up a peer with addresses.
func provider(t *testing.T, addrs ...string) peer.AddrInfo {
	t.Helper()
	id, err := test.RandPeerID()
	if err != nil {
		t.Fatal(err)
	}
	info := peer.AddrInfo{ID: id}
	for _, a := range addrs {
		info.Addrs = append(info.Addrs, ma.StringCast(a))
	}
	return info
}

// client asks these endpoints.
func client(t *testing.T, network string, endpoints ...string) *delegated.Client {
	t.Helper()
	c, err := delegated.NewClient(&delegated.Config{Endpoints: endpoints, Network: network, UserAgent: "test"}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// serve starts an endpoint and returns its URL.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// finds returns what the client finds, in the order of the IDs.
func finds(t *testing.T, c *delegated.Client, k cid.Cid) []peer.AddrInfo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return sorted(slices.Collect(c.FindProviders(ctx, k)))
}

func sorted(infos []peer.AddrInfo) []peer.AddrInfo {
	slices.SortFunc(infos, func(a, b peer.AddrInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return infos
}

func TestClientAndServerUnderstandEachOther(t *testing.T) {
	a := provider(t, "/ip4/192.168.1.1/tcp/1", "/ip4/11.0.0.1/udp/1/quic-v1")
	b, c := provider(t, "/ip4/11.0.0.2/tcp/1"), provider(t, "/ip4/11.0.0.3/tcp/1")
	one := &source{records: map[cid.Cid][]peer.AddrInfo{key(1): {a, b}}}
	two := &source{records: map[cid.Cid][]peer.AddrInfo{key(1): {b, c}}}
	for _, network := range []string{"", "team"} {
		first := serve(t, delegated.NewHandler(one, &delegated.ServerConfig{Network: network}))
		second := serve(t, delegated.NewHandler(two, &delegated.ServerConfig{Network: network}))
		asking := client(t, network, first, second+"/routing/v1/")
		if diff := cmp.Diff(sorted([]peer.AddrInfo{a, b, c}), finds(t, asking, key(1))); diff != "" {
			t.Errorf("network %q: providers (-want +got)\n%s", network, diff)
		}
		if got := finds(t, asking, key(2)); len(got) != 0 {
			t.Errorf("network %q: providers of what nobody has: %v", network, got)
		}
		if asking.Size() != 2 {
			t.Errorf("network %q: status %+v", network, asking.Status())
		}
	}
}

// Nobody outside a private network hears what is looked for in it.
func TestOtherNetworksEndpointsHearNothing(t *testing.T) {
	s := &source{records: map[cid.Cid][]peer.AddrInfo{key(1): {provider(t, "/ip4/11.0.0.1/tcp/1")}}}
	for name, served := range map[string]http.Handler{
		"the public network": delegated.NewHandler(s, &delegated.ServerConfig{}),
		"another network":    delegated.NewHandler(s, &delegated.ServerConfig{Network: "blue"}),
		"any server": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			defer s.mu.Unlock()
			k, err := cid.Decode(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
			if err != nil {
				t.Errorf("asked for %s", r.URL.Path)
			}
			s.asked = append(s.asked, k)
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"Providers":[]}`)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, "red", serve(t, served))
			if got := finds(t, c, key(1)); len(got) > 0 {
				t.Errorf("found %v", got)
			}
			if slices.Contains(s.searches(), key(1)) {
				t.Error("the endpoint has heard what is looked for")
			}
			if status := c.Status()[0]; status.Usable || status.Problem == nil || !strings.Contains(status.Problem.Error(), "network") {
				t.Errorf("status %+v, want a problem with the network", status)
			}
		})
	}
}

// An endpoint that is reconfigured for another network is not believed any more.
func TestNetworkIsCheckedInEveryAnswer(t *testing.T) {
	s := &source{records: map[cid.Cid][]peer.AddrInfo{key(1): {provider(t, "/ip4/11.0.0.1/tcp/1")}}}
	red := delegated.NewHandler(s, &delegated.ServerConfig{Network: "red"})
	blue := delegated.NewHandler(s, &delegated.ServerConfig{Network: "blue"})
	requests := 0
	c := client(t, "red", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests <= 2 {
			red.ServeHTTP(w, r)
		} else {
			blue.ServeHTTP(w, r)
		}
	})))
	if got := finds(t, c, key(1)); len(got) != 1 {
		t.Fatalf("found %v", got)
	}
	if got := finds(t, c, key(1)); len(got) != 0 || c.Size() != 0 {
		t.Errorf("another network's endpoint was believed: %v", got)
	}
}

// Who is far away must not make this machine dial its own neighbours.
func TestAddressesAreThoseOfWhereTheEndpointIs(t *testing.T) {
	p := provider(t, "/ip4/192.168.1.1/tcp/1", "/ip4/11.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip6/fd00::1/tcp/1")
	s := &source{records: map[cid.Cid][]peer.AddrInfo{key(1): {p}}}
	public := peer.AddrInfo{ID: p.ID, Addrs: p.Addrs[1:2]}
	for _, tt := range []struct {
		name, network, endpoint string
		want                    peer.AddrInfo
	}{
		{"far away", "", farAway, public},
		{"nearby", "", "", p},
		{"private network, far away", "team", farAway, p},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := delegated.NewHandler(s, &delegated.ServerConfig{Network: tt.network})
			proxy.Lock()
			proxy.Handler = h
			proxy.Unlock()
			if tt.endpoint == "" {
				tt.endpoint = serve(t, h)
			}
			if diff := cmp.Diff([]peer.AddrInfo{tt.want}, finds(t, client(t, tt.network, tt.endpoint), key(1))); diff != "" {
				t.Errorf("providers (-want +got)\n%s", diff)
			}
		})
	}
}

func TestHostileEndpoints(t *testing.T) {
	good, other := provider(t, "/ip4/11.0.0.1/tcp/1"), provider(t)
	var elsewhere atomic.Bool
	victim := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Store(true) }))
	record := func(id peer.ID, addrs ...string) string {
		return fmt.Sprintf(`{"Schema":"peer","ID":"%s","Addrs":["%s"]}`, id, strings.Join(addrs, `","`))
	}
	const addr = "/ip4/11.0.0.1/tcp/1"
	for name, tt := range map[string]struct {
		contentType, body string
		status            int
		want              []peer.AddrInfo
	}{
		"error":             {"text/plain", strings.Repeat("no ", 1e6), 500, nil},
		"not found":         {"text/plain", "no", 404, nil},
		"no content type":   {"", record(good.ID, addr), 200, nil},
		"HTML":              {"text/html", "<html>", 200, nil},
		"broken":            {"application/x-ndjson", record(good.ID, addr) + "\n{\"Schema\":", 200, []peer.AddrInfo{good}},
		"null":              {"application/x-ndjson", "null\n" + record(good.ID, addr), 200, []peer.AddrInfo{good}},
		"another schema":    {"application/x-ndjson", `{"Schema":"x","ID":1}` + "\n" + record(good.ID, addr), 200, []peer.AddrInfo{good}},
		"no ID":             {"application/json", `{"Providers":[{"Schema":"peer","Addrs":["` + addr + `"]},` + record(good.ID, addr) + `]}`, 200, []peer.AddrInfo{good}},
		"another's address": {"application/json", `{"Providers":[` + record(good.ID, addr, addr+"/p2p/"+other.ID.String()) + `]}`, 200, []peer.AddrInfo{good}},
		"own ID in address": {"application/json", `{"Providers":[` + record(good.ID, addr+"/p2p/"+good.ID.String(), "/p2p/"+good.ID.String()) + `]}`, 200, []peer.AddrInfo{good}},
		"no address":        {"application/json", `{"Providers":[` + record(other.ID, "/p2p/"+other.ID.String()) + `]}`, 200, []peer.AddrInfo{other}},
		"bomb":              {"application/x-ndjson", `{"Schema":"peer","Extra":"` + strings.Repeat("x", 8<<20) + `"}`, 200, nil},
		"JSON bomb":         {"application/json", `{"Providers":[` + strings.Repeat(" ", 8<<20) + record(good.ID, addr) + `]}`, 200, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, "", serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.body)
			})))
			if diff := cmp.Diff(tt.want, finds(t, c, key(1))); diff != "" {
				t.Errorf("providers (-want +got)\n%s", diff)
			}
		})
	}
	t.Run("redirects", func(t *testing.T) {
		c := client(t, "", serve(t, http.RedirectHandler(victim, http.StatusFound)))
		if got := finds(t, c, key(1)); len(got) > 0 || elsewhere.Load() {
			t.Errorf("followed to another host, and found %v", got)
		}
	})
	t.Run("many", func(t *testing.T) {
		var addrs []string
		for i := range 1000 {
			addrs = append(addrs, fmt.Sprintf("/ip4/11.0.0.1/tcp/%d", i+1))
		}
		c := client(t, "", serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-ndjson")
			fmt.Fprintln(w, record(provider(t).ID, addrs...))
			for range 1000 {
				fmt.Fprintln(w, record(provider(t).ID, addr))
			}
		})))
		got := finds(t, c, key(1))
		if len(got) != routing.MaxProviders {
			t.Errorf("%d providers, want %d", len(got), routing.MaxProviders)
		}
		for _, info := range got {
			if len(info.Addrs) > 16 {
				t.Errorf("%d addresses of a provider", len(info.Addrs))
			}
		}
	})
}

func TestFailingEndpointIsLeftAlone(t *testing.T) {
	var requests atomic.Int32
	var works atomic.Bool
	secret := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		if !works.Load() {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"Providers":[]}`)
	}))
	u, err := url.Parse(secret)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("me", "swordfish")
	c := client(t, "", u.String())
	for range 10 {
		finds(t, c, key(1))
	}
	if n := requests.Load(); n != 1 || c.Size() != 0 {
		t.Errorf("%d requests to an endpoint that fails, of %d that can be asked", n, c.Size())
	}
	if status := c.Status()[0]; strings.Contains(status.URL, "swordfish") || status.Problem == nil || strings.Contains(status.Problem.Error(), "swordfish") {
		t.Errorf("status %+v, want a problem and no password", status)
	}
	works.Store(true)
	for c.Size() == 0 { // For 1.5 s at most.
		time.Sleep(10 * time.Millisecond)
	}
	finds(t, c, key(1))
	if status := c.Status()[0]; requests.Load() != 2 || status.Problem != nil {
		t.Errorf("%d requests, status %+v, want it in use again", requests.Load(), status)
	}
}

func TestNewClientRefuses(t *testing.T) {
	for name, endpoints := range map[string][]string{
		"none":   nil,
		"nine":   slices.Repeat([]string{farAway}, 9),
		"a path": {"http://me:swordfish@a.example/x"},
		"no URL": {"http://me:swordfish@[a"},
	} {
		_, err := delegated.NewClient(&delegated.Config{Endpoints: endpoints}, zap.NewNop())
		if err == nil || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: %v, want an error without the password", name, err)
		}
	}
}
