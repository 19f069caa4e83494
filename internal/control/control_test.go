package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// node answers with its fields.
type node struct {
	control.Node
	provide   func(nix.StorePath) error
	providers iter.Seq[control.Provider]
	// hang has a search last until its context ends.
	hang bool
}

func (n *node) Status() control.Status {
	return control.Status{Version: "7", P2P: &control.P2PStatus{Addresses: []string{"/ip4/192.0.2.1/tcp/1"}}}
}

func (n *node) Peers() ([]control.Peer, error) {
	return nil, &control.Error{Status: http.StatusConflict, Message: "no peers", Hint: "set a profile"}
}

func (n *node) Provide(_ context.Context, paths []nix.StorePath) []error {
	errs := make([]error, len(paths))
	for i, path := range paths {
		errs[i] = n.provide(path)
	}
	return errs
}

func (n *node) Find(ctx context.Context, target control.Target) (*control.Found, iter.Seq[control.Provider], error) {
	if !target.IsHash {
		return nil, nil, fmt.Errorf("no such thing: %w", narstore.ErrNotFound)
	}
	return &control.Found{CID: target.Hash.String()}, func(yield func(control.Provider) bool) {
		n.providers(yield)
		if n.hang {
			<-ctx.Done()
		}
	}, nil
}

// serve serves n on a socket, which it returns.
func serve(t *testing.T, n control.Node) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "control.sock")
	l, err := control.Listen(t.Context(), socket, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{
		Handler: handler(t, n), ConnContext: control.WithCaller, ReadHeaderTimeout: time.Minute,
	}}
	server.Start()
	t.Cleanup(server.Close)
	return socket
}

// newClient serves n on a socket and returns a client of it.
func newClient(t *testing.T, n control.Node) *control.Client {
	t.Helper()
	return control.NewClient([]string{filepath.Join(t.TempDir(), "absent"), serve(t, n)})
}

// overSocket returns an HTTP client to which every host is at a socket.
func overSocket(t *testing.T, socket string) *http.Client {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func handler(t *testing.T, n control.Node) http.Handler {
	t.Helper()
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, s+r.URL.Path) }
	}
	return control.NewHandler(t.Context(), n, text("cache "), text("metrics "), zaptest.NewLogger(t))
}

func TestStatus(t *testing.T) {
	got, err := newClient(t, &node{}).Status(t.Context())
	want := control.Status{Version: "7", P2P: &control.P2PStatus{Addresses: []string{"/ip4/192.0.2.1/tcp/1"}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Status() = %v (-want +got):\n%s", err, diff)
	}
}

// TestErrorWithHint wants the node's refusal whole at the client.
func TestErrorWithHint(t *testing.T) {
	_, err := newClient(t, &node{}).Peers(t.Context())
	var got *control.Error
	if !errors.As(err, &got) || *got != (control.Error{Status: http.StatusConflict, Message: "no peers", Hint: "set a profile"}) {
		t.Errorf("Peers() = %#v", err)
	}
}

func TestProvide(t *testing.T) {
	n := &node{provide: func(path nix.StorePath) error {
		switch path.Name() {
		case "absent":
			return fmt.Errorf("here: %w", narstore.ErrNotFound)
		case "secret":
			return errors.New("not for others")
		default:
			return nil
		}
	}}
	var paths []nix.StorePath
	for _, name := range []string{"good", "absent", "secret"} {
		path, err := nix.NewStorePath(nix.HashPart{1}, name)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	// More than fit into one request.
	for len(paths) < 2500 {
		paths = append(paths, paths[0])
	}
	results, err := newClient(t, n).Provide(t.Context(), paths)
	if err != nil || len(results) != len(paths) {
		t.Fatalf("Provide() = %d results, %v", len(results), err)
	}
	want := []control.PathResult{
		{Path: paths[0].String()},
		{Path: paths[1].String(), NotFound: true, Error: "this node's store does not have it"},
		{Path: paths[2].String(), Error: "not for others"},
		{Path: paths[0].String()},
	}
	if diff := cmp.Diff(want, results[:4]); diff != "" {
		t.Errorf("Provide() (-want +got):\n%s", diff)
	}
}

func (n *node) Explain(_ context.Context, target control.Target) (*explain.Path, error) {
	return &explain.Path{HashPart: target.Part.String(), StorePath: target.Path.String(), Verdict: "would be served"}, nil
}

func TestExplain(t *testing.T) {
	client := newClient(t, &node{})
	path := "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-x"
	for target, want := range map[string]string{path: path, "00bgd045z0d4icpbc2yyz4gx48ak44la": ""} {
		told, err := client.Explain(t.Context(), target)
		if err != nil || told.HashPart != "00bgd045z0d4icpbc2yyz4gx48ak44la" || told.StorePath != want || told.Verdict != "would be served" {
			t.Errorf("Explain(%q) = %+v, %v", target, told, err)
		}
	}
	_, err := client.Explain(t.Context(), nix.NARHash{}.String())
	var refusal *control.Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusBadRequest {
		t.Errorf("Explain() of a NAR hash = %v, want a 400", err)
	}
}

func TestFind(t *testing.T) {
	providers := []control.Provider{{ID: "a", Addresses: []string{"/ip4/192.0.2.1/tcp/1"}}, {ID: "b", Self: true}}
	client := newClient(t, &node{providers: slices.Values(providers)})
	var found []string
	var got []control.Provider
	err := client.Find(t.Context(), nix.NARHash{}.String(), func(e control.FindEvent) error {
		if e.Found != nil {
			found = append(found, e.Found.CID)
		} else {
			got = append(got, *e.Provider)
		}
		return nil
	})
	if diff := cmp.Diff(providers, got); err != nil || diff != "" || len(found) != 1 {
		t.Errorf("Find() = %v, found %v (-want +got):\n%s", err, found, diff)
	}
	err = client.Find(t.Context(), "00bgd045z0d4icpbc2yyz4gx48ak44la", func(control.FindEvent) error { return nil })
	var refusal *control.Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusNotFound {
		t.Errorf("Find() of an unknown path = %v, want a 404", err)
	}
}

// TestFindStreams wants a provider to arrive before the search ends, and the
// search to end when the client leaves.
func TestFindStreams(t *testing.T) {
	left := make(chan struct{})
	client := newClient(t, &node{providers: func(yield func(control.Provider) bool) {
		for yield(control.Provider{ID: "a"}) {
		}
		close(left)
	}})
	enough := errors.New("enough")
	err := client.Find(t.Context(), nix.NARHash{}.String(), func(e control.FindEvent) error {
		if e.Provider != nil {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("Find() = %v, want the callback's error", err)
	}
	<-left
}

func TestRequests(t *testing.T) {
	n := &node{provide: func(nix.StorePath) error { return nil }}
	client := overSocket(t, serve(t, n))
	many, err := json.Marshal(control.PathsRequest{Paths: slices.Repeat([]string{"/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-x"}, 1001)})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		method, path, body string
		status             int
		want               string
	}{
		"cache":         {"GET", "/cache/nar/x.nar", "", 200, "cache /nar/x.nar"},
		"metrics":       {"GET", "/metrics", "", 200, "metrics /metrics"},
		"unknown":       {"GET", "/v1/other", "", 404, "not found"},
		"wrong method":  {"GET", "/v1/provide", "", 405, "Not Allowed"},
		"no JSON":       {"POST", "/v1/provide", "paths", 400, "request: "},
		"no store path": {"POST", "/v1/provide", `{"paths": ["/etc/passwd"]}`, 400, "is not in /nix/store"},
		"many paths":    {"POST", "/v1/provide", string(many), 400, "1001 paths in one request are more than 1000"},
		"huge body":     {"POST", "/v1/provide", `{"paths": ["` + strings.Repeat("x", 1<<20) + `"]}`, 400, "too large"},
		"no target":     {"GET", "/v1/find", "", 400, "is no store path"},
		"long target":   {"GET", "/v1/find?target=" + strings.Repeat("a", 1000), "", 400, "longer than 300"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), tt.method, "http://nar-p2pd"+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != tt.status || !strings.Contains(string(body), tt.want) {
				t.Errorf("%s %s = %d %.200s, %v, want %d with %q", tt.method, tt.path, response.StatusCode, body, err, tt.status, tt.want)
			}
		})
	}
}

func TestParseTarget(t *testing.T) {
	part := nix.HashPart{}
	hash := nix.NARHash{}
	path, err := nix.NewStorePath(part, "x")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		text string
		want control.Target
		ok   bool
	}{
		"store path":     {path.String(), control.Target{Path: path, Part: part}, true},
		"hash part":      {part.String(), control.Target{Part: part}, true},
		"sha256:":        {hash.String(), control.Target{Hash: hash, IsHash: true}, true},
		"hexadecimal":    {"sha256:" + strings.Repeat("0", 64), control.Target{Hash: hash, IsHash: true}, true},
		"SRI":            {"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", control.Target{Hash: hash, IsHash: true}, true},
		"base 32":        {hash.Base32(), control.Target{Hash: hash, IsHash: true}, true},
		"CID":            {"bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", control.Target{Hash: hash, IsHash: true}, true},
		"CID of sha-512": {"bafkrgqdjh3zlk", control.Target{}, false},
		"file below":     {path.String() + "/bin", control.Target{}, false},
		"nothing":        {"", control.Target{}, false},
	}
	for name, tt := range tests {
		got, err := control.ParseTarget(tt.text)
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("%s: ParseTarget(%q) = %v, %v, want %v", name, tt.text, got, err, tt.want)
		}
	}
}

// TestListen wants a socket for its user only where there is no group for it, one
// daemon at a time, and the socket of a dead one replaced.
func TestListen(t *testing.T) {
	log := zaptest.NewLogger(t)
	path := filepath.Join(t.TempDir(), "new", "control.sock")
	l, err := control.Listen(t.Context(), path, log)
	if err != nil {
		t.Fatal(err)
	}
	want := os.FileMode(0o600)
	if _, err := user.LookupGroup(control.Group); err == nil && os.Geteuid() == 0 {
		want = 0o660
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != want {
		t.Errorf("socket is %v, %v, want mode %o", info, err, want)
	}
	if _, err := control.Listen(t.Context(), path, log); !errors.Is(err, control.ErrRunning) {
		t.Errorf("second Listen() = %v, want ErrRunning", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close the socket is still there: %v", err)
	}

	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err = control.Listen(t.Context(), path, log)
	if err != nil {
		t.Fatalf("Listen() in place of a dead socket = %v", err)
	}
	l.Close()

	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(t.Context(), path, log); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("Listen() in place of a file = %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	_, err := control.NewClient([]string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}).Status(ctx)
	if !errors.Is(err, control.ErrUnreachable) || !strings.Contains(err.Error(), "a or ") {
		t.Errorf("Status() = %v, want ErrUnreachable with both sockets", err)
	}
}

// TestStopping wants a search to end with the daemon, and a transfer to go on.
func TestStopping(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	n := &node{providers: func(func(control.Provider) bool) { stop() }, hang: true}
	cache := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, fmt.Sprint(r.Context().Err())) })
	server := httptest.NewServer(control.NewHandler(ctx, n, cache, cache, zaptest.NewLogger(t)))
	defer server.Close()
	for path, want := range map[string]string{
		"/v1/find?target=" + nix.NARHash{}.Base32(): "nar-p2pd is stopping",
		"/cache/nar/x.nar":                          "<nil>",
	} {
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s = %q, %v, want %q", path, body, err, want)
		}
	}
}
