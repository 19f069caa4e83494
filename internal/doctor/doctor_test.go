package doctor_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/doctor"
)

// node says what it is told to.
type node struct {
	status  control.Status
	peers   []control.Peer
	metrics map[string]float64
}

func (n node) Status(context.Context) (control.Status, error)      { return n.status, nil }
func (n node) Peers(context.Context) ([]control.Peer, error)       { return n.peers, nil }
func (n node) Metrics(context.Context) (map[string]float64, error) { return n.metrics, nil }
func (n node) Config(context.Context) (c control.Config, err error) {
	c.Settings = []config.Effective{{Key: "trust.public_keys", Values: []string{"a-1:A"}}}
	return c, nil
}

// TestVerdicts changes one thing of a node that is well, and wants it noticed.
func TestVerdicts(t *testing.T) {
	tests := map[string]struct {
		change func(n *node, nix *doctor.NixConfig)
		check  string
		want   doctor.Verdict
	}{
		"substitutes nothing": {func(_ *node, c *doctor.NixConfig) { c.Substitute = false }, "nix-substituter", doctor.Failed},
		"another port":        {func(n *node, _ *doctor.NixConfig) { n.status.Substituter = "http://127.0.0.1:1" }, "nix-substituter", doctor.Failed},
		"alone":               {func(_ *node, c *doctor.NixConfig) { c.Substituters = c.Substituters[:1] }, "nix-order", doctor.Warning},
		"no timeout":          {func(_ *node, c *doctor.NixConfig) { c.ConnectTimeout = 0 }, "nix-connect-timeout", doctor.Warning},
		"no key":              {func(_ *node, c *doctor.NixConfig) { c.TrustedKeys = nil }, "nix-keys", doctor.Failed},
		"empty store":         {func(n *node, _ *doctor.NixConfig) { n.status.Store.Shareable = 0 }, "store", doctor.Warning},
		"no store":            {func(n *node, _ *doctor.NixConfig) { n.status.Store.Kind = "none" }, "store", doctor.Warning},
		"store away":          {func(n *node, _ *doctor.NixConfig) { n.status.Store.Problem = "locked" }, "store", doctor.Warning},
		"damaged path":        {func(n *node, _ *doctor.NixConfig) { n.status.Store.Damaged = []string{"/nix/store/x"} }, "store", doctor.Warning},
		"infrastructure":      {func(n *node, _ *doctor.NixConfig) { n.status.Role = "infrastructure" }, "store", doctor.Skipped},
		"upstream down":       {func(n *node, _ *doctor.NixConfig) { n.status.Upstreams[0].Reachable = false }, "upstreams", doctor.Warning},
		"upstream not asked": {func(n *node, _ *doctor.NixConfig) {
			n.status.Upstreams[0].State, n.status.Upstreams[0].URL = "unknown", "http://127.0.0.1:1"
		}, "upstreams", doctor.Warning},
		"no peers":      {func(n *node, _ *doctor.NixConfig) { n.peers = nil }, "peers", doctor.Warning},
		"no neighbours": {func(n *node, _ *doctor.NixConfig) { n.peers[0].LAN = false }, "lan-peers", doctor.Skipped},
		"no DHT nodes":  {func(n *node, _ *doctor.NixConfig) { n.status.P2P.RoutingPeers = 0 }, "dht", doctor.Warning},
		"delegated":     {func(n *node, _ *doctor.NixConfig) { n.status.P2P.Routing = "none" }, "dht", doctor.Skipped},
		"behind a NAT": {func(n *node, _ *doctor.NixConfig) {
			n.status.P2P.Reach = control.Reach{State: "unreachable", Why: "a NAT", Remedy: "a port"}
		}, "reachability", doctor.Warning},
		"any port": {func(n *node, _ *doctor.NixConfig) {
			n.status.P2P.Reach.State, n.status.P2P.Reach.NAT = "relayed", "any port"
		}, "nat", doctor.Warning},
		"same port": {func(n *node, _ *doctor.NixConfig) {
			n.status.P2P.Reach.State, n.status.P2P.Reach.NAT = "relayed", "same port"
		}, "nat", doctor.OK},
		"no port known": {func(n *node, _ *doctor.NixConfig) { n.status.P2P.Reach.State = "relayed" }, "nat", doctor.Skipped},
		"a relay": {func(n *node, _ *doctor.NixConfig) {
			n.status.P2P.Reach.State, n.status.P2P.Reach.Relays = "relayed", []string{"x"}
		}, "relay", doctor.OK},
		"no relay": {func(n *node, _ *doctor.NixConfig) {
			n.status.P2P.Reach.State, n.status.P2P.Reach.Remedy = "unreachable", "a port"
		}, "relay", doctor.Warning},
		"relayed":      {func(n *node, _ *doctor.NixConfig) { n.status.P2P.Reach.State = "relayed" }, "reachability", doctor.OK},
		"nobody tells": {func(n *node, _ *doctor.NixConfig) { n.status.P2P.Reach.State = "unknown" }, "reachability", doctor.Warning},
		"just started": {func(n *node, _ *doctor.NixConfig) {
			n.status.P2P.Reach.State, n.status.Started = "unknown", time.Now()
		}, "reachability", doctor.Skipped},
		"few files":       {func(n *node, _ *doctor.NixConfig) { n.metrics["process_max_fds"] = 1024 }, "open-files", doctor.Warning},
		"files used up":   {func(n *node, _ *doctor.NixConfig) { n.metrics["process_open_fds"] = 19000 }, "open-files", doctor.Warning},
		"profile off":     {func(n *node, _ *doctor.NixConfig) { n.status.P2P, n.status.Profile = nil, "off" }, "peers", doctor.Skipped},
		"wrong clock":     {func(n *node, _ *doctor.NixConfig) { n.status.Upstreams[0].URL += "/yesterday" }, "clock", doctor.Warning},
		"no such folder":  {func(n *node, _ *doctor.NixConfig) { n.status.StateDir += "/nothing" }, "disk", doctor.Skipped},
		"nothing is kept": {func(n *node, _ *doctor.NixConfig) { n.status.StateProblem = "no room" }, "state", doctor.Warning},
		"was damaged":     {func(n *node, _ *doctor.NixConfig) { n.status.StateSetAside = "/somewhere" }, "state", doctor.Warning},
		"nothing to test": {func(n *node, _ *doctor.NixConfig) { n.status.Store.Example = "" }, "self-test", doctor.Skipped},
		"not served":      {func(*node, *doctor.NixConfig) {}, "self-test", doctor.Failed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n, nix, client := healthy(t)
			tt.change(&n, nix)
			if got := examine(t, doctor.Patient{Node: n, Nix: settings(nix), HTTP: client})[tt.check]; got.Verdict != tt.want {
				t.Errorf("%s: %+v, want %s", tt.check, got, tt.want)
			} else if bad := got.Verdict == doctor.Warning || got.Verdict == doctor.Failed; bad && got.Remedy == "" {
				t.Errorf("%s: no remedy for %q", tt.check, got.Finding)
			}
		})
	}
	n, nix, client := healthy(t)
	for name, c := range examine(t, doctor.Patient{Node: n, Nix: settings(nix), HTTP: client}) {
		if c.Verdict != doctor.OK && name != "self-test" {
			t.Errorf("healthy: %+v", c)
		}
	}
	broken := func(context.Context) (*doctor.NixConfig, error) { return nil, errors.New("no such option") }
	if got := examine(t, doctor.Patient{Node: n, Nix: broken, HTTP: client})["nix"]; got.Verdict != doctor.Warning {
		t.Errorf("broken Nix: %+v", got)
	}
}

func settings(nix *doctor.NixConfig) func(context.Context) (*doctor.NixConfig, error) {
	return func(context.Context) (*doctor.NixConfig, error) { return nix, nil }
}

func examine(t *testing.T, p doctor.Patient) map[string]doctor.Check {
	t.Helper()
	checks := make(map[string]doctor.Check)
	for c := range p.Examine(t.Context()) {
		if _, twice := checks[c.Name]; twice {
			t.Errorf("%s is there twice", c.Name)
		}
		checks[c.Name] = c
	}
	return checks
}

// healthy is a node of which nothing is wrong but that its substituter has no
// path.
func healthy(t *testing.T) (node, *doctor.NixConfig, *http.Client) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/nix-cache-info", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/yesterday/nix-cache-info", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-24*time.Hour).UTC().Format(http.TimeFormat))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	n := node{
		status: control.Status{
			Started: time.Now().Add(-time.Hour), Profile: "public", Network: "public", Role: "node", Substituter: server.URL,
			StateDir: t.TempDir(), Store: control.StoreStatus{Kind: "nix", Location: "/", Shareable: 1, Example: "00bgd045z0d4icpbc2yyz4gx48ak44la"},
			Upstreams: []control.UpstreamStatus{{URL: server.URL, Reachable: true}},
			P2P:       &control.P2PStatus{Reach: control.Reach{State: "reachable"}, Routing: "server", RoutingPeers: 20},
		},
		peers:   []control.Peer{{ID: "x", Exchange: true, LAN: true}},
		metrics: map[string]float64{"process_max_fds": 20000, "process_open_fds": 100},
	}
	return n, &doctor.NixConfig{
		Substituters: []string{server.URL + "/", "https://cache.nixos.org"}, TrustedKeys: []string{"a-1:A", "b-1:B"},
		Fallback: true, ConnectTimeout: 5 * time.Second, Substitute: true,
	}, server.Client()
}
