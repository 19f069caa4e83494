package substituter_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/substituter"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

func TestHost(t *testing.T) {
	l := newLab(t)
	l.cfg.Hosts = []string{"Cache.lan"}
	l.start()
	for host, status := range map[string]int{
		"localhost": 200, "LOCALHOST:8460": 200, "localhost.": 200, "a.localhost": 200,
		"127.0.0.1:8460": 200, "127.1.2.3": 200, "[::1]": 200, "[::1]:8460": 200,
		"cache.lan:8460": 200, "evil.example.org": 421, "evil.example.org:8460": 421,
		"localhost.evil.org": 421, "127.0.0.1.evil.org": 421, "10.0.0.1": 421, "xlocalhost": 421,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.url+"/nix-cache-info", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := l.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("Host %s: %d, want %d", host, resp.StatusCode, status)
		}
	}
}

// No web page can reach the control socket, and its client names no host.
func TestUnixSocket(t *testing.T) {
	l := newLab(t).start()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := substituter.NewHTTPServer(http.StripPrefix("/cache", l.server.Handler()), l.deps.Log)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() {
		server.Close()
		<-done
	}()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://nar-p2pd/cache/nix-cache-info")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestMethodsAndPaths(t *testing.T) {
	l := newLab(t).start()
	for _, tt := range []struct {
		method, path string
		status       int
		header       []string
	}{
		{"GET", "/", 404, nil},
		{"GET", "/index.html", 404, nil},
		{"GET", "//nix-cache-info", 404, nil},
		{"GET", "/nar/", 404, nil},
		{"GET", "/nar/../nix-cache-info", 404, nil},
		{"HEAD", "/nix-cache-info", 200, nil},
		{"PUT", "/nix-cache-info", 405, nil},
		{"POST", "/", 405, nil},
		{"OPTIONS", "/nix-cache-info", 405, nil},
		{"GET", "/nix-cache-info", 403, []string{"Sec-Fetch-Site", "cross-site"}},
		// Every port of this machine is of one site.
		{"GET", "/nix-cache-info", 403, []string{"Sec-Fetch-Site", "same-site"}},
		{"GET", "/nix-cache-info", 200, []string{"Sec-Fetch-Site", "same-origin"}},
		{"GET", "/nix-cache-info", 200, []string{"Sec-Fetch-Site", "none"}},
		{"GET", "/nix-cache-info", 403, []string{"Origin", "https://evil.example"}},
		{"GET", "/nix-cache-info", 403, []string{"Origin", "null"}},
		{"GET", "/nix-cache-info", 403, []string{"Origin", "http://127.0.0.1:1"}},
		{"GET", "/nix-cache-info", 200, []string{"Origin", l.url}},
	} {
		resp, _, err := l.do(tt.method, tt.path, tt.header...)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s %q = %d, want %d", tt.method, tt.path, tt.header, resp.StatusCode, tt.status)
		}
		if tt.status == 405 && resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow = %q", tt.method, tt.path, resp.Header.Get("Allow"))
		}
	}
}

func TestPassThrough(t *testing.T) {
	l := newLab(t)
	second := newCache(t)
	l.cfg.Upstreams = append(l.cfg.Upstreams, upstream.Config{URL: second.url})
	part := strings.Repeat("0", 32)
	drv, listing := "log/"+part+"-x.drv", part+".ls"
	doi := "realisations/sha256:" + strings.Repeat("ab", 32) + "!out.doi"
	l.cache.files[drv] = []byte("building\n")
	second.files[doi] = []byte("{}")
	var brotlied bytes.Buffer
	w := brotli.NewWriter(&brotlied)
	_, _ = w.Write([]byte(`{"version":1}`))
	_ = w.Close()
	l.cache.files["secret"], l.cache.files["log/secret"] = []byte("x"), []byte("x")
	l.start()

	for path, want := range map[string]string{"/" + drv: "building\n", "/" + doi: "{}"} {
		if _, body := l.get(path, http.StatusOK); string(body) != want {
			t.Errorf("%s = %q, want %q", path, body, want)
		}
		resp, body, err := l.do(http.MethodHead, path)
		if err != nil || resp.StatusCode != http.StatusOK || len(body) != 0 {
			t.Errorf("HEAD %s = %v, %v", path, resp, err)
		}
	}
	for _, path := range []string{
		"/secret", "/log/secret", "/log/../secret", "/log/" + part + "-x", "/log/" + part + "-y.drv", "/x.ls", "/" + listing,
		"/realisations/sha256:ab!out.doi", "/realisations/../secret", "/" + doi + "/..",
		strings.Replace("/"+doi, "!", "/../", 1),
	} {
		l.get(path, http.StatusNotFound)
	}
	if narinfos, wants, _ := l.peers.calls(); len(narinfos)+len(wants) != 0 {
		t.Errorf("peers were asked: %v, %v", narinfos, wants)
	}

	l.cache.fail(func(w http.ResponseWriter, _ *http.Request) { // as cache.nixos.org has its listings
		w.Header().Set("Content-Encoding", "br")
		_, _ = w.Write(brotlied.Bytes())
	})
	header, body := l.get("/"+listing, http.StatusOK)
	if string(body) != `{"version":1}` || header.Get("Content-Encoding") != "" {
		t.Errorf("listing = %q, %v", body, header)
	}
	l.cache.fail(reset)
	second.fail(reset)
	l.get("/"+drv, http.StatusNotFound)
}

func TestDrain(t *testing.T) {
	l := newLab(t)
	p := l.path("p", large)
	l.cache.add(p)
	l.start()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.url+p.narURL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.server.Drain(ended); err == nil {
		t.Error("Drain returned while a transfer was in flight")
	}
	if _, _, err := l.do(http.MethodGet, "/nix-cache-info"); err == nil {
		t.Error("a new request was answered")
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(body, p.nar) {
		t.Errorf("the transfer in flight: %d bytes, %v", len(body), err)
	}
	if err := l.server.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	l := newLab(t)
	registry := prometheus.NewPedanticRegistry()
	l.deps.Metrics = registry
	p := l.path("p", small)
	l.cache.add(p)
	l.start()
	l.getNAR(p)
	l.get(l.path("absent", 1).narinfoURL(), http.StatusNotFound)
	if err := l.server.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{
		"nar_p2p_narinfo_requests_total{result=found}":  1,
		"nar_p2p_narinfo_requests_total{result=absent}": 1,
		"nar_p2p_nar_requests_total{result=served}":     1,
		"nar_p2p_nar_bytes_total{source=upstream}":      small,
		"nar_p2p_plan_decisions_total{first=upstream}":  1,
		"nar_p2p_plan_won_total{hedged=no}":             1,
	}
	if diff := cmp.Diff(want, counted(t, registry)); diff != "" {
		t.Error(diff)
	}
	if got := l.server.Stats(); got.NARs["served"] != 1 || len(got.Upstreams) != 1 || !got.Upstreams[0].Reachable {
		t.Errorf("Stats() = %+v", got)
	}
}

// counted returns the counters that are not zero.
func counted(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "nar_p2p_upstream_") {
			continue
		}
		for _, m := range f.GetMetric() {
			if v := m.GetCounter().GetValue(); v > 0 {
				got[fmt.Sprintf("%s{%s=%s}", f.GetName(), m.GetLabel()[0].GetName(), m.GetLabel()[0].GetValue())] = v
			}
		}
	}
	return got
}

func TestNewRefuses(t *testing.T) {
	good := newLab(t)
	for name, change := range map[string]func(*lab){
		"no logger":         func(l *lab) { l.deps.Log = nil },
		"no bucket":         func(l *lab) { l.deps.Records = nil },
		"negative deadline": func(l *lab) { l.cfg.Deadline = -1 },
		"negative priority": func(l *lab) { l.cfg.Priority = -1 },
		"an S3 upstream":    func(l *lab) { l.cfg.Upstreams = []upstream.Config{{URL: "s3://bucket"}} },
	} {
		l := *good
		change(&l)
		if _, err := substituter.New(l.cfg, l.deps); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
