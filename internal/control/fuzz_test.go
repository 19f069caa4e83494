package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// obedient does whatever it is asked, and notes whether that changes anything and
// whether a bound was broken.
type obedient struct {
	t       *testing.T
	changed bool
}

func (o *obedient) bound(what string, n, limit int) {
	if o.changed = true; n < 0 || n > limit {
		o.t.Errorf("%d %s reach the node, at most %d should", n, what, limit)
	}
}

func (*obedient) Status() control.Status                   { return control.Status{} }
func (*obedient) Config() control.Config                   { return control.Config{} }
func (*obedient) Peers() ([]control.Peer, error)           { return nil, nil }
func (*obedient) Bans() ([]control.Ban, error)             { return nil, nil }
func (*obedient) Dashboard() control.Dashboard             { return control.Dashboard{} }
func (*obedient) Subscribe() (*events.Subscription, error) { return nil, http.ErrNotSupported }

func (o *obedient) Reload() (*control.Reloaded, error) { return &control.Reloaded{}, o.change() }

func (o *obedient) Resume() (control.Sharing, error)             { return control.Sharing{}, o.change() }
func (o *obedient) Unban(context.Context, peer.ID) (bool, error) { return true, o.change() }

func (o *obedient) change() error {
	o.changed = true
	return nil
}

func (o *obedient) Connect(_ context.Context, info peer.AddrInfo) error {
	o.bound("addresses", len(info.Addrs), 1)
	return info.ID.Validate()
}

func (o *obedient) Ping(_ context.Context, p peer.ID) (time.Duration, error) { return 0, p.Validate() }

func (o *obedient) Bench(_ context.Context, p peer.ID, size int64) (*control.Bench, error) {
	o.bound("bytes", int(size), control.MaxBench)
	return &control.Bench{}, p.Validate()
}

func (o *obedient) Ban(_ context.Context, p peer.ID, until time.Time) error {
	if o.changed = true; !until.IsZero() && until.Before(time.Now()) {
		o.t.Errorf("a ban until %v", until)
	}
	return p.Validate()
}

func (o *obedient) Provide(_ context.Context, paths []nix.StorePath) []error {
	o.bound("paths", len(paths), 1000)
	return make([]error, len(paths))
}

func (o *obedient) Withdraw(ctx context.Context, paths []nix.StorePath) []error {
	return o.Provide(ctx, paths)
}

func (*obedient) Explain(context.Context, control.Target) (*explain.Path, error) {
	return &explain.Path{}, nil
}

func (*obedient) Find(context.Context, control.Target) (*control.Found, iter.Seq[control.Provider], error) {
	return &control.Found{}, func(func(control.Provider) bool) {}, nil
}

func (*obedient) UpgradePlan(context.Context, []nix.StorePath, bool) iter.Seq2[*control.UpgradePath, error] {
	return func(func(*control.UpgradePath, error) bool) {}
}

func (*obedient) Health(context.Context, []nix.StorePath, bool) iter.Seq2[*control.HealthPath, error] {
	return func(func(*control.HealthPath, error) bool) {}
}

func (o *obedient) Records(_ context.Context, paths []nix.StorePath) []control.Record {
	records := make([]control.Record, len(paths))
	for i := range records {
		records[i].Err = http.ErrNotSupported
	}
	return records
}

func (o *obedient) Sign(_ context.Context, _ narinfo.PublicKey, signatures []control.Signature) ([]control.Signed, string) {
	o.bound("signatures", len(signatures), 256)
	return make([]control.Signed, len(signatures)), ""
}

func (*obedient) Days(_ context.Context, n int) ([]meter.Day, error) {
	return make([]meter.Day, min(n, 1)), nil
}

func (o *obedient) Pause(d time.Duration) (control.Sharing, error) {
	o.bound("days", int(d/time.Hour/24), 366)
	return control.Sharing{}, nil
}

var _ control.Node = (*obedient)(nil)

// FuzzRequest sends requests to the control socket. Each gets an answer, what is
// not a POST changes nothing, and nothing unbounded gets through.
func FuzzRequest(f *testing.F) {
	const id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	for _, seed := range []struct{ method, target, body string }{
		{"GET", "/v1/status", ""},
		{"GET", "/v1/find?target=00bgd045z0d4icpbc2yyz4gx48ak44la", ""},
		{"GET", "/v1/stats?days=3", ""},
		{"POST", "/v1/provide", `{"paths": ["/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-x"]}`},
		{"POST", "/v1/pause", `{"seconds": 60}`},
		{"POST", "/v1/peers/ban", `{"peer": "` + id + `", "seconds": 5}`},
		{"POST", "/v1/peers/connect", `{"address": "/ip4/127.0.0.1/tcp/1/p2p/` + id + `"}`},
		{"POST", "/v1/upgrade-plan", `{"paths": []}`},
		{"POST", "/v1/records", `{"paths": ["/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-x"]}`},
		{"POST", "/v1/signatures", `{"publicKey": "a-1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "signatures": [{"path": "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-x", "signature": "a-1:` + strings.Repeat("A", 86) + `=="}]}`},
		{"GET", "/v1/explain?target=/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-x", ""},
		{"DELETE", "//v1/../cache/%2e%2e/nar", "{}"},
	} {
		f.Add(seed.method, seed.target, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://nar-p2pd/", bytes.NewReader(body))
		if err != nil {
			return
		}
		// As a server does: nothing else reaches a handler.
		if request.URL, err = request.URL.Parse(target); err != nil || !strings.HasPrefix(request.URL.Path, "/") {
			return
		}
		if strings.HasPrefix(request.URL.Path, "/debug/") {
			return // which takes its time
		}
		n := &obedient{t: t}
		nothing := http.NotFoundHandler()
		h := control.NewHandler(t.Context(), n, nothing, nothing, zap.NewNop())
		h.ServeHTTP(httptest.NewRecorder(), request)
		if n.changed {
			t.Errorf("nobody has changed something with %s %s", method, target)
		}
		request.Body = io.NopCloser(bytes.NewReader(body))
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, control.AsOwner(request))
		if n.changed && method != http.MethodPost {
			t.Errorf("%s %s has changed something", method, target)
		}
		if answer.Header().Get("Content-Type") == "application/json" && !json.Valid(answer.Body.Bytes()) {
			t.Errorf("%s %s is answered with what is not JSON: %q", method, target, answer.Body)
		}
	})
}
