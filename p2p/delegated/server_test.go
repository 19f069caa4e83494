package delegated_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/p2p/delegated"
)

// get makes a request as from an address.
func get(ctx context.Context, h http.Handler, path, from string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	r.RemoteAddr = from
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const (
	office = "192.168.1.77:1234"
	abroad = "11.0.0.77:1234"
)

func path(k cid.Cid) string { return "/routing/v1/providers/" + k.String() }

// addresses returns those in an answer of JSON.
func addresses(t *testing.T, w *httptest.ResponseRecorder) []string {
	t.Helper()
	var answer struct {
		Providers []struct{ Addrs []string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	var addrs []string
	for _, p := range answer.Providers {
		addrs = append(addrs, p.Addrs...)
	}
	return addrs
}

func TestAddressesOfTheLocalNetworkStayThere(t *testing.T) {
	s := &source{records: map[cid.Cid][]peer.AddrInfo{key(1): {
		provider(t, "/ip4/192.168.1.1/tcp/1", "/ip4/11.0.0.1/tcp/1"), provider(t, "/ip4/192.168.1.2/tcp/1"), provider(t),
	}}}
	all := []string{"/ip4/192.168.1.1/tcp/1", "/ip4/11.0.0.1/tcp/1", "/ip4/192.168.1.2/tcp/1"}
	public := delegated.NewHandler(s, &delegated.ServerConfig{})
	private := delegated.NewHandler(s, &delegated.ServerConfig{Network: "team"})
	for _, tt := range []struct {
		name string
		h    http.Handler
		from string
		want []string
	}{
		{"office", public, office, all},
		{"abroad", public, abroad, all[1:2]},
		{"member abroad", private, abroad, all},
	} {
		if diff := cmp.Diff(tt.want, addresses(t, get(t.Context(), tt.h, path(key(1)), tt.from))); diff != "" {
			t.Errorf("%s: addresses (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestWhatIsNotServed(t *testing.T) {
	s := &source{records: map[cid.Cid][]peer.AddrInfo{key(1): {provider(t, "/ip4/11.0.0.1/tcp/1")}}}
	h := delegated.NewHandler(s, &delegated.ServerConfig{})
	sha256Of := key(1).Hash()
	for name, tt := range map[string]struct {
		path   string
		header []string
		want   int
	}{
		"a directory":          {path: path(cid.NewCidV1(cid.DagProtobuf, sha256Of)), want: 200},
		"version 0":            {path: path(cid.NewCidV0(sha256Of)), want: 200},
		"another hash":         {path: path(cid.NewCidV1(cid.Raw, []byte("\x00\x03abc"))), want: 200},
		"no CID":               {path: "/routing/v1/providers/x", want: 400},
		"long":                 {path: "/routing/v1/providers/z" + strings.Repeat("z", 10_000), want: 400},
		"nothing":              {path: "/routing/v1/providers/", want: 404},
		"peers":                {path: "/routing/v1/peers/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", want: 501},
		"names":                {path: "/routing/v1/ipns/k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8", want: 501},
		"elsewhere":            {path: "/", want: 404},
		"a way around":         {path: "/routing/v1/providers/../peers/x", want: 404},
		"a page":               {path: path(key(1)), header: []string{"Sec-Fetch-Site", "cross-site"}, want: 403},
		"a page by rebinding":  {path: path(key(1)), header: []string{"Sec-Fetch-Site", "same-origin"}, want: 403},
		"what does not accept": {path: path(key(1)), header: []string{"Accept", "text/html"}, want: 400},
	} {
		w := get(t.Context(), h, tt.path, office, tt.header...)
		if w.Code != tt.want {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, tt.want)
		}
		if w.Code == http.StatusOK && len(addresses(t, w)) > 0 {
			t.Errorf("%s: %s", name, w.Body)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/routing/v1/providers/", strings.NewReader(`{}`))
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code < 400 {
		t.Errorf("PUT: %d", w.Code)
	}
	if asked := s.searches(); len(asked) > 0 {
		t.Errorf("looked up %v", asked)
	}
}

func TestAnswersOfPrivateNetworksAreNotCached(t *testing.T) {
	s := &source{records: map[cid.Cid][]peer.AddrInfo{key(1): {provider(t, "/ip4/11.0.0.1/tcp/1")}}}
	for network, want := range map[string]string{"": "public", "team": "no-store"} {
		h := delegated.NewHandler(s, &delegated.ServerConfig{Network: network})
		for _, accept := range []string{"application/json", "application/x-ndjson"} {
			for _, k := range []cid.Cid{key(1), key(2)} {
				w := get(t.Context(), h, path(k), office, "Accept", accept)
				if got := w.Header().Get("Cache-Control"); w.Code != http.StatusOK || !strings.Contains(got, want) {
					t.Errorf("network %q, %s: %d, Cache-Control %q, want %q", network, accept, w.Code, got, want)
				}
				if strings.Contains(strings.Join(slices.Concat(w.Header()["Nar-P2p-Network"]), ""), "team") {
					t.Error("the network's name is told to everybody")
				}
			}
		}
	}
}

// A whole office upgrades at about the same time.
func TestOneSearchServesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{records: map[cid.Cid][]peer.AddrInfo{key(1): {provider(t, "/ip4/11.0.0.1/tcp/1")}}, release: make(chan struct{})}
		h := delegated.NewHandler(s, &delegated.ServerConfig{})
		answers := make(chan []string)
		for range 50 {
			go func() { answers <- addresses(t, get(t.Context(), h, path(key(1)), office)) }()
		}
		synctest.Wait()
		close(s.release)
		for range 50 {
			if got := <-answers; len(got) != 1 {
				t.Errorf("addresses %v", got)
			}
		}
		for _, step := range []struct {
			what  string
			after time.Duration
			key   cid.Cid
			want  int
		}{
			{"all at once", 0, key(1), 1},
			{"soon after", 59 * time.Second, key(1), 0},
			{"later", time.Second, key(1), 1},
			{"nobody has it", 0, key(2), 1},
			{"still nobody", 14 * time.Second, key(2), 0},
			{"perhaps by now", time.Second, key(2), 1},
		} {
			time.Sleep(step.after)
			get(t.Context(), h, path(step.key), office)
			if got := len(s.searches()); got != step.want {
				t.Errorf("%s: %d searches, want %d", step.what, got, step.want)
			}
		}
	})
}

func TestSearchEndsWithTheLastWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{records: map[cid.Cid][]peer.AddrInfo{key(1): {provider(t, "/ip4/11.0.0.1/tcp/1")}}, release: make(chan struct{})}
		h := delegated.NewHandler(s, &delegated.ServerConfig{})
		first, leave := context.WithCancel(t.Context())
		second, leaveToo := context.WithCancel(t.Context())
		go get(first, h, path(key(1)), office)
		go get(second, h, path(key(1)), office)
		synctest.Wait()
		leave()
		synctest.Wait()
		if s.cancelled != 0 {
			t.Error("the search ended while somebody waited")
		}
		leaveToo()
		synctest.Wait()
		if s.cancelled != 1 {
			t.Errorf("%d searches cancelled, want 1", s.cancelled)
		}
		// It is not taken for an answer.
		go func() { s.release <- struct{}{} }()
		if got := addresses(t, get(t.Context(), h, path(key(1)), office)); len(got) != 1 {
			t.Errorf("addresses %v", got)
		}
	})
}

func TestFloodIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{records: make(map[cid.Cid][]peer.AddrInfo), release: make(chan struct{})}
		for n := range 256 {
			s.records[key(byte(n))] = []peer.AddrInfo{{}}
		}
		h := delegated.NewHandler(s, &delegated.ServerConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		for n := range 256 {
			go get(ctx, h, path(key(byte(n))), office)
		}
		synctest.Wait()
		if got := len(s.searches()); got != 32 {
			t.Errorf("%d searches at once", got)
		}
		if w := get(ctx, h, path(key(1)), office); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("one more: %d, want 503 and when to try again", w.Code)
		}
		// All get an answer in the end, if only that nothing was found in time.
		time.Sleep(time.Minute)
		if w := get(ctx, h, path(key(1)), office); w.Code != http.StatusOK {
			t.Errorf("after the flood: %d", w.Code)
		}
		cancel()
	})
}
