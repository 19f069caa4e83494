package web_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/web"
)

const token = "secret"

// bucket keeps nothing.
type bucket struct{}

func (bucket) Get([]byte) ([]byte, error)                                { return nil, errors.New("absent") }
func (bucket) Put(_, _ []byte, _ time.Duration) error                    { return nil }
func (bucket) Each(context.Context, func(key, value []byte) error) error { return nil }

// node is a made-up one with a real hub and meter.
type node struct {
	*events.Hub
	*meter.Meter
	paused  control.Sharing
	unready string
}

func (n *node) Status() control.Status       { return control.Status{Version: "7", Sharing: n.paused} }
func (*node) Peers() ([]control.Peer, error) { return nil, errors.New("there are none") }
func (*node) Flights() []explain.Flight      { return []explain.Flight{} }
func (n *node) Unready() string              { return n.unready }
func (*node) Dashboard() control.Dashboard   { return control.Dashboard{} }

func (n *node) Resume() (control.Sharing, error) {
	n.paused = control.Sharing{}
	return n.paused, nil
}

func (n *node) Pause(time.Duration) (control.Sharing, error) {
	n.paused.Paused = true
	return n.paused, nil
}

func (*node) Explain(_ context.Context, target control.Target) (*explain.Path, error) {
	return &explain.Path{HashPart: target.Part.String(), Verdict: "Would be served."}, nil
}

// serve serves a dashboard before a cache that knows one path, behind a guard that
// turns one name away.
func serve(t *testing.T) (*node, string) {
	t.Helper()
	n := &node{Hub: events.NewHub(), Meter: meter.New(bucket{}, zaptest.NewLogger(t))}
	text := func(s string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, s) })
	}
	guard := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == "evil.test" {
				w.WriteHeader(http.StatusMisdirectedRequest)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(web.New(ctx, n, token, text("metrics"), zaptest.NewLogger(t)).Handler(text("cache"), guard))
	t.Cleanup(func() {
		cancel() // which ends the streams
		server.Close()
	})
	return n, server.URL
}

func do(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			request.Host = header[i+1]
		}
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

func TestPathsOfTheDashboardAndOfTheCache(t *testing.T) {
	n, url := serve(t)
	for path, want := range map[string]string{
		"/": "<title>nar-p2p</title>", "/dashboard/app.js": "EventSource", "/dashboard/uplot/LICENSE": "MIT License",
		"/metrics": "metrics", "/healthz": "ok", "/readyz": "ready", "/nix-cache-info": "cache", "/nar/x": "cache", "/x.narinfo": "cache",
	} {
		if response, text := do(t, http.MethodGet, url+path, ""); response.StatusCode != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("GET %s = %d, %.80s", path, response.StatusCode, text)
		}
	}
	for path, want := range map[string]int{
		"/dashboard/absent.js": 404, "/dashboard/%2e%2e/static.go": 404, "/dashboard/": 404, "/dashboard/uplot": 404,
	} {
		if response, text := do(t, http.MethodGet, url+path, ""); response.StatusCode != want {
			t.Errorf("GET %s = %d, %.80s, want %d", path, response.StatusCode, text, want)
		}
	}
	if response, _ := do(t, http.MethodGet, url+"/", "", "Host", "evil.test"); response.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("by another name: %d", response.StatusCode)
	}
	n.unready = "not yet"
	if response, text := do(t, http.MethodGet, url+"/readyz", ""); response.StatusCode != http.StatusServiceUnavailable || text != "not yet\n" {
		t.Errorf("not ready: %d, %s", response.StatusCode, text)
	}
}

func TestThePageMayLoadAndRunItsOwnFilesOnly(t *testing.T) {
	_, url := serve(t)
	response, text := do(t, http.MethodGet, url+"/", "")
	policy := response.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'", "form-action 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q has no %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(text, "style=") || strings.Contains(text, "<script>") || strings.Contains(text, "//") {
		t.Error("the page has what its policy forbids, or names another site")
	}
	if cors := response.Header.Get("Access-Control-Allow-Origin"); cors != "" {
		t.Errorf("other sites may read it: %q", cors)
	}
	again, _ := do(t, http.MethodGet, url+"/", "", "If-None-Match", response.Header.Get("ETag"))
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("the same page again: %d", again.StatusCode)
	}
}

func TestOnlyTheTokenPausesSharing(t *testing.T) {
	n, url := serve(t)
	for _, tt := range []struct {
		name   string
		status int
		header []string
	}{
		{"no token", 401, nil},
		{"another token", 401, []string{"Authorization", "Bearer secre"}},
		{"another site", 403, []string{"Authorization", "Bearer " + token, "Origin", "http://evil.test"}},
		{"this site", 200, []string{"Authorization", "Bearer " + token, "Origin", url}},
		{"a program", 200, []string{"Authorization", "Bearer " + token}},
	} {
		n.paused = control.Sharing{}
		response, text := do(t, http.MethodPost, url+"/dashboard/pause", `{"seconds":1}`, tt.header...)
		if response.StatusCode != tt.status || n.paused.Paused != (tt.status == 200) {
			t.Errorf("%s: %d, %s, paused %t", tt.name, response.StatusCode, text, n.paused.Paused)
		}
	}
	for _, body := range []string{"", "[]", `{"seconds":-1}`, `{"seconds":` + strings.Repeat("1", 1<<20) + `}`} {
		n.paused = control.Sharing{}
		response, _ := do(t, http.MethodPost, url+"/dashboard/pause", body, "Authorization", "Bearer "+token)
		if response.StatusCode != http.StatusBadRequest || n.paused.Paused {
			t.Errorf("%.20q: %d", body, response.StatusCode)
		}
	}
	if response, _ := do(t, http.MethodGet, url+"/dashboard/pause", ""); response.StatusCode != http.StatusNotFound && response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET of the switch: %d", response.StatusCode)
	}
	n.paused.Paused = true
	if response, _ := do(t, http.MethodPost, url+"/dashboard/resume", "{}", "Authorization", "Bearer "+token); response.StatusCode != 200 || n.paused.Paused {
		t.Errorf("resume: %d, %+v", response.StatusCode, n.paused)
	}
}

func TestExplainWantsAPath(t *testing.T) {
	_, url := serve(t)
	part := nix.HashPart{1}.String()
	if response, text := do(t, http.MethodGet, url+"/dashboard/explain?target="+part, ""); response.StatusCode != 200 || !strings.Contains(text, part) {
		t.Errorf("explain: %d, %s", response.StatusCode, text)
	}
	for _, target := range []string{"", "x", nix.NARHash{}.String()} {
		if response, text := do(t, http.MethodGet, url+"/dashboard/explain?target="+target, ""); response.StatusCode != 400 || !strings.Contains(text, `"error"`) {
			t.Errorf("explain %q: %d, %s", target, response.StatusCode, text)
		}
	}
}

// listen opens a stream and returns a function that waits for an event.
func listen(t *testing.T, url string) (await func(kind string) string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/dashboard/stream", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil || response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("stream: %v, %v", response, err)
	}
	t.Cleanup(func() { response.Body.Close() })
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	return func(kind string) string {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == "event: "+kind && lines.Scan() {
				return strings.TrimPrefix(lines.Text(), "data: ")
			}
		}
		t.Fatalf("the stream has ended, waiting for %s: %v", kind, lines.Err())
		return ""
	}
}

func TestTheStreamTellsHowThingsStandAndWhatChanges(t *testing.T) {
	n, url := serve(t)
	n.Publish(events.Event{Kind: events.KindProblem, Problem: &events.Problem{Text: "before"}})
	n.Add(meter.Amounts{LAN: 5})
	await := listen(t, url)
	var first struct{ Days []meter.Day }
	if err := json.Unmarshal([]byte(await("traffic")), &first); err != nil || len(first.Days) != 1 || first.Days[0].LAN != 5 {
		t.Errorf("traffic: %+v, %v", first, err)
	}
	if got := await("problems"); !strings.Contains(got, `"before"`) {
		t.Errorf("problems: %s", got)
	}
	if got := await("status"); !strings.Contains(got, `"version":"7"`) {
		t.Errorf("status: %s", got)
	}
	if got := await("flights"); got != "[]" {
		t.Errorf("flights: %s", got)
	}
	n.Add(meter.Amounts{Peer: 7})
	if got := await("seconds"); !strings.Contains(got, `"peer":7`) {
		t.Errorf("seconds: %s", got)
	}
	for range 500 {
		n.Publish(events.Event{Kind: events.KindSharing, Sharing: &events.Sharing{}})
	}
	var all []events.Event
	if err := json.Unmarshal([]byte(await("events")), &all); err != nil || len(all) > 51 || all[0].Lost == 0 {
		t.Errorf("%d events of 500 at once, the first %+v, %v", len(all), all[0], err)
	}
}

func TestPagesAreBounded(t *testing.T) {
	_, url := serve(t)
	for range 16 {
		listen(t, url)
	}
	if response, _ := do(t, http.MethodGet, url+"/dashboard/stream", ""); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the 17th: %d", response.StatusCode)
	}
}

// TestAssets wants of others' files those that their manifest names, and no more.
func TestAssets(t *testing.T) {
	text, err := os.ReadFile("uplot.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Files map[string]struct{ SHA256 string }
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	entries, err := fs.ReadDir(os.DirFS("static"), "uplot")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(manifest.Files) || !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "LICENSE" }) {
		t.Errorf("%d files, want %d and the licence", len(entries), len(manifest.Files))
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join("static/uplot", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if digest := sha256.Sum256(data); hex.EncodeToString(digest[:]) != manifest.Files[e.Name()].SHA256 {
			t.Errorf("%s is not what uplot.json says: make assets", e.Name())
		}
	}
}
