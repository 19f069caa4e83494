package main

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"net/http"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"p2pctl": main})
}

// TestScripts runs testdata/*.txt. Their command "daemon" serves the control
// API of a made-up node, with genuine records and NARs, on the socket where
// p2pctl looks for it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("NAR_P2P_SOCKET", filepath.Join(env.WorkDir, "control.sock"))
			return newStore(env)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"daemon":   func(ts *testscript.TestScript, _ bool, args []string) { serve(t, ts, args) },
			"exitcode": exitcode,
		},
	})
}

// exitcode wants "exitcode N COMMAND ARGS...".
func exitcode(ts *testscript.TestScript, _ bool, args []string) {
	codes := map[string]string{"1": "exit status 1", "2": "exit status 2", "3": "exit status 3", "4": "exit status 4", "5": "exit status 5"}
	err := ts.Exec(args[1], args[2:]...)
	if err == nil || err.Error() != codes[args[0]] {
		ts.Fatalf("%v: %v, want %s", args[1:], err, codes[args[0]])
	}
}

// serve starts the daemon. The argument "corrupt" flips a byte of every NAR,
// "cut" ends it early, "long" adds a byte.
func serve(t *testing.T, ts *testscript.TestScript, args []string) {
	t.Helper()
	log := zaptest.NewLogger(t)
	l, err := control.Listen(context.Background(), ts.Getenv("NAR_P2P_SOCKET"), log)
	ts.Check(err)
	metrics := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{
		Handler:           control.NewHandler(context.Background(), node{ts.Value(storeValue{}).(*store)}, cache(strings.Join(args, "")), metrics, log),
		ConnContext:       control.WithCaller,
		ReadHeaderTimeout: time.Minute,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	ts.Defer(func() {
		server.Close()
		<-done
	})
}

// cache serves the records and NARs of package cachetest.
func cache(fault string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{narinfo}", func(w http.ResponseWriter, r *http.Request) {
		text, err := fs.ReadFile(cachetest.FS, path.Join("narinfo", r.PathValue("narinfo")))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		info, err := narinfo.Parse(text)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		info.URL, info.Compression = narinfo.NARURL(info.StorePath.HashPart(), info.NARHash), "none"
		w.Write(info.Bytes())
	})
	mux.HandleFunc("GET /nar/{nar}", func(w http.ResponseWriter, r *http.Request) {
		part, _, _ := strings.Cut(r.PathValue("nar"), "-")
		nar, err := fs.ReadFile(cachetest.FS, path.Join("nar", part+".nar"))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		switch fault {
		case "corrupt":
			nar[len(nar)/2] ^= 1
		case "cut":
			nar = nar[:len(nar)/2]
		case "long":
			nar = append(nar, 0)
		}
		w.Write(nar)
	})
	return mux
}

// node has one path that it shares, of those that have a NAR in package
// cachetest, and knows of one peer. What it has signed is in its store.
type node struct{ *store }

const (
	sharedPart = "00bgd045z0d4icpbc2yyz4gx48ak44la"
	peerID     = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
)

func (node) Status() control.Status {
	return control.Status{
		Version: "1.2.3", Started: time.Now().Add(-time.Hour), Profile: "public", Network: "public",
		Visible:     "strangers can see this sentence, which is too long for a line of 80 columns.",
		Substituter: "http://127.0.0.1:8460",
		Store:       control.StoreStatus{Kind: "nix", Location: "/", Shareable: 17},
		StateDir:    "/var/lib/nar-p2p",
		Limits:      &control.Limits{Download: 5 << 20, Schedule: "mon;08:00-18:00;download=5MiB/s", Until: time.Date(2026, 6, 1, 18, 0, 0, 0, time.Local)},
		P2P: &control.P2PStatus{
			PeerID: peerID, Addresses: []string{"/ip4/192.0.2.1/tcp/8461/p2p/" + peerID},
			Connected: 3, Reachability: "private", Away: "wlan\x1b0", Routing: "client", RoutingPeers: 120,
			Announcing: &control.Announcing{Keys: 34, Waiting: 4, Skipped: 5, Resting: 7, SentBytes: 1536},
			Served:     &control.Served{Bytes: 3 << 20, Sessions: 5},
		},
		NARBytes: map[string]uint64{"peer": 2 << 30, "upstream": 1023},
		Upstreams: []control.UpstreamStatus{
			{URL: "https://cache.nixos.org", Reachable: true, State: "ok", LatencySeconds: 0.0234},
			{URL: "https://slow.example.org", Reachable: true, State: "slow", LatencySeconds: 1.2, Problem: "status 500"},
			{URL: "https://down.example.org", Private: true, State: "open", Problem: "no \x1b[2Janswer", OpenUntil: time.Now().Add(time.Hour)},
			{URL: "https://dead.example.org", State: "open", Problem: "status 500", OpenUntil: time.Now().Add(-time.Hour)},
			{URL: "https://new.example.org", Reachable: true, State: "unknown"},
		},
	}
}

func (node) Config() control.Config {
	return control.Config{File: "/etc/nar-p2p/config.toml", Settings: []config.Effective{
		{Key: "profile", Values: []string{"consume"}, Origin: "/etc/nar-p2p/config.toml"},
		{Key: "p2p.listen", Values: []string{"/ip4/0.0.0.0/tcp/8461", "/ip6/::/tcp/8461"}, Origin: config.OriginDefault},
		{Key: "p2p.peers", Values: []string{}, Origin: config.OriginDefault},
	}}
}

func (node) Reload() (*control.Reloaded, error) {
	return &control.Reloaded{Applied: []string{"log.level"}, Restart: []string{"network"}}, nil
}

func (node) Peers() ([]control.Peer, error) {
	return []control.Peer{{
		ID: peerID, Addresses: []string{"/ip4/192.0.2.1/tcp/8461"}, Agent: "evil\x1b[2Jagent",
		Exchange: true, LAN: true, LatencySeconds: 0.0123,
	}}, nil
}

// Connect and the others know one peer only, which is always a millisecond away.
func (node) Connect(_ context.Context, info peer.AddrInfo) error {
	if info.ID.String() != peerID {
		return errors.New("no route to host")
	}
	return nil
}

func (node) Ping(context.Context, peer.ID) (time.Duration, error) { return time.Millisecond, nil }

func (node) Bench(_ context.Context, p peer.ID, size int64) (*control.Bench, error) {
	if size == 1 {
		return nil, &control.Error{Status: http.StatusConflict, Message: "the peer is busy", Hint: "later"}
	}
	return &control.Bench{
		Peer: p.String(), Via: "lan", RTTSeconds: 0.0012, FirstByteSeconds: 0.0034, Seconds: 2, Bytes: size, BytesPerSecond: float64(size / 2), DownloadLimit: 20 << 20,
	}, nil
}

func (node) Ban(context.Context, peer.ID, time.Time) error { return nil }

func (node) Unban(_ context.Context, p peer.ID) (bool, error) { return p.String() == peerID, nil }

func (node) Bans() ([]control.Ban, error) {
	return []control.Ban{{Peer: peerID}, {Peer: "12D3KooWA4htBzrXcmca9U5cvLFy7vB4XbAN5Dqr3GKpKrJKsifj", Until: time.Now().Add(time.Hour)}}, nil
}

var hub = events.NewHub()

// Subscribe gives what one made-up event of each kind is, and nothing more.
func (node) Subscribe() (*events.Subscription, error) {
	heard, err := hub.Subscribe()
	if err != nil {
		return nil, err
	}
	path := "/nix/store/" + sharedPart + "-some-name"
	for _, e := range []events.Event{
		{Kind: events.KindRequest, Request: &events.Request{What: "narinfo", HashPart: sharedPart, StorePath: path, Result: "found"}},
		{Kind: events.KindFetch, Fetch: &explain.Fetch{StorePath: path, NARSize: 3 << 20, Result: explain.Running}},
		{Kind: events.KindFetch, Fetch: &explain.Fetch{
			StorePath: path, NARSize: 3 << 20, Result: explain.Broken, Seconds: 1.5, Error: "no source is left",
			Sources: []explain.Source{
				{Kind: explain.FromPeers, Bytes: 1 << 20, Peers: []explain.Part{{Peer: peerID, Bytes: 1 << 20}}},
				{Kind: explain.FromUpstream, Name: "https://cache.nixos.org", Bytes: 1 << 10},
			},
		}},
		{Kind: events.KindPeer, Peer: &events.Peer{ID: peerID, Connected: true, Exchange: true, LAN: true, Agent: "evil\x1b[2Jagent"}},
		{Kind: events.KindPeer, Peer: &events.Peer{ID: "stranger", Connected: true}},
		{Kind: events.KindAnnounce, Announce: &events.Announce{Keys: 34, Waiting: 4, SentBytes: 1536}},
		{Kind: events.KindSharing, Sharing: &events.Sharing{Paused: true}},
		{Kind: events.KindProblem, Problem: &events.Problem{Severity: "warn", Text: "upstream is left alone: \x1b[2J"}},
	} {
		hub.Publish(e)
	}
	return heard, nil
}

func (node) Days(context.Context, int) ([]meter.Day, error) {
	return []meter.Day{
		{Date: "2026-01-30", Amounts: meter.Amounts{Peer: 1 << 20, LAN: 2 << 20, Upstream: 4 << 20}},
		{Date: "2026-01-31", Amounts: meter.Amounts{Store: 1 << 10, Reuse: 2 << 10, Served: 8 << 20}},
	}, nil
}

func (node) Pause(d time.Duration) (control.Sharing, error) {
	if d == 0 {
		return control.Sharing{Paused: true}, nil
	}
	return control.Sharing{Paused: true, Until: time.Now().Add(d)}, nil
}

func (node) Resume() (control.Sharing, error) { return control.Sharing{}, nil }

func (node) Dashboard() control.Dashboard {
	return control.Dashboard{URL: "http://127.0.0.1:8460/#token=secret"}
}

func (node) Provide(_ context.Context, paths []nix.StorePath) []error {
	errs := make([]error, len(paths))
	for i, path := range paths {
		switch {
		case path.HashPart().String() == sharedPart:
		case path.IsDerivation():
			errs[i] = errors.New("a derivation is never shared")
		default:
			errs[i] = narstore.ErrNotFound
		}
	}
	return errs
}

func (n node) Withdraw(ctx context.Context, paths []nix.StorePath) []error {
	return n.Provide(ctx, paths)
}

// unrecorded is the name of paths of which nobody has a record.
const unrecorded = "unrecorded"

// UpgradePlan knows three paths of a closure, of which one is there and one is
// nowhere else, and their names are somebody else's.
func (node) UpgradePlan(_ context.Context, paths []nix.StorePath, alone bool) iter.Seq2[*control.UpgradePath, error] {
	return func(yield func(*control.UpgradePath, error) bool) {
		for _, path := range paths {
			if path.Name() == unrecorded {
				if !yield(&control.UpgradePath{StorePath: path.String(), NotFound: true, Problem: "nobody has a narinfo of it"}, nil) {
					return
				}
				continue
			}
			if path.HashPart().String() != sharedPart {
				yield(nil, &control.Error{Status: http.StatusConflict, Message: "this node takes nothing from its store", Hint: "enable it"})
				return
			}
			told := []*control.UpgradePath{{StorePath: path.String(), NARSize: 3 << 20, BySum: 1 << 20, ByMaskedSum: 3 << 19, Transfer: 1<<19 + 4096}}
			if !alone {
				told = append(told,
					&control.UpgradePath{StorePath: "/nix/store/" + sharedPart + "-there", Present: true, NARSize: 7},
					&control.UpgradePath{StorePath: "/nix/store/" + sharedPart + "-large", NARSize: 5 << 20, Transfer: 5 << 20, Problem: "no peer has \x1b[2J it"})
			}
			for _, p := range told {
				if !yield(p, nil) {
					return
				}
			}
		}
	}
}

// Explain knows the path that the node shares, whose record some peer has
// decorated, and that of another one that it does not believe.
func (node) Explain(_ context.Context, target control.Target) (*explain.Path, error) {
	now := time.Now()
	hash := target.Hash.String()
	upstream := explain.Answer{
		Upstream: "https://cache.nixos.org", Standing: explain.StandingFound, TookSeconds: 0.034, UsualSeconds: 0.05, NARHash: hash,
		Signatures: []explain.Signature{{Key: "cache.nixos.org-1", Verdict: explain.Trusted}, {Key: "evil\x1b[2Jkey", Verdict: explain.UnknownKey}},
		Malformed:  2,
	}
	p := &explain.Path{HashPart: target.Part.String(), Time: now, State: explain.StateFound, Upstreams: []explain.Answer{upstream}}
	if p.HashPart != sharedPart {
		p.State = explain.StateUnknown
		p.Upstreams[0].Standing, p.Upstreams[0].Error = explain.StandingNotBelieved, "0 of 1 trusted keys needed have signed it"
		p.Upstreams = append(p.Upstreams, explain.Answer{
			Upstream: "https://team.example.org", Private: true, Standing: explain.StandingLeftAlone, Error: "connection refused",
		})
		p.Conclude()
		return p, nil
	}
	p.StorePath = "/nix/store/" + sharedPart + "-some-name"
	p.Record = &explain.Record{
		Source: upstream.Upstream, NARHash: hash, NARSize: 3 << 20, References: 4, Kept: true, AgeSeconds: 7200,
		Strangers: true, Proof: explain.BySignatures, Signers: 1, Threshold: 1, Signatures: upstream.Signatures[:1],
	}
	p.Conflict = &explain.Conflict{Statements: []explain.Statement{
		{NARHash: hash, NARSize: 3 << 20, Signatures: []string{"cache.nixos.org-1:AAAA"}, Sources: []string{upstream.Upstream}, First: time.Unix(1767369600, 0)},
		{NARHash: nix.NARHash{1}.String(), NARSize: 3 << 20, Signatures: []string{"team-1:AAAA"}, Sources: []string{"peer", "store"}, First: time.Unix(1767369600, 0)},
	}}
	p.Peers = &explain.Peers{Connected: 3, LAN: 1, Routing: 120, Searched: true, Answers: []explain.PeerAnswer{
		{ID: peerID, LAN: true, Connected: true, LatencySeconds: 0.0012},
		{ID: peerID, Holds: true},
	}}
	expected := &explain.Expected{FirstByteSeconds: 0.02, BytesPerSecond: 10 << 20, Seconds: 0.32}
	p.Plan = &explain.Plan{Order: explain.HolderKnown, Sources: []explain.Planned{
		{Kind: explain.FromPeers, AfterSeconds: 1, Expected: &explain.Expected{Local: 0.95}},
		{Kind: explain.FromUpstream, Name: upstream.Upstream, AfterSeconds: 0.5, Expected: expected},
	}}
	p.Fetch = &explain.Fetch{
		NARHash: hash, NARSize: 3 << 20, Started: now.Add(-5 * time.Minute), Seconds: 1.5, Result: explain.Served,
		Order: explain.NoHolderKnown,
		Sources: []explain.Source{
			{Kind: explain.FromUpstream, Name: upstream.Upstream, Expected: expected, Bytes: 3 << 20, Wasted: 1 << 20, HeldSeconds: 1.25, Attempts: []explain.Attempt{
				{Why: explain.WhenSilent, FirstByte: 0.1, Stop: 1.5, Bytes: 3 << 20, End: explain.Complete},
			}},
			{Kind: explain.FromPeers, AfterSeconds: 3, Bytes: 2 << 20, Reused: &explain.Reused{BySum: 1 << 19, ByMaskedSum: 1 << 20}, Attempts: []explain.Attempt{}},
		},
	}
	p.Conclude()
	return p, nil
}

// Health knows a closure of two paths.
func (node) Health(_ context.Context, paths []nix.StorePath, alone bool) iter.Seq2[*control.HealthPath, error] {
	return func(yield func(*control.HealthPath, error) bool) {
		if paths[0].Name() == unrecorded {
			yield(&control.HealthPath{StorePath: paths[0].String(), NotFound: true, Problem: "nobody has a narinfo of it"}, nil)
			return
		}
		more := yield(&control.HealthPath{StorePath: paths[0].String(), NARSize: 2048, Present: true, Providers: 3, LAN: 1}, nil)
		if more && !alone {
			yield(&control.HealthPath{StorePath: "/nix/store/" + sharedPart + "-rare", NARSize: 1024, Problem: "strangers are not asked about it"}, nil)
		}
	}
}

func (node) Find(_ context.Context, target control.Target) (*control.Found, iter.Seq[control.Provider], error) {
	found := &control.Found{CID: "bafkreiexample"}
	if !target.IsHash {
		if target.Part.String() != sharedPart {
			return nil, nil, narstore.ErrNotFound
		}
		found.StorePath, found.NARHash = "/nix/store/"+sharedPart+"-some-name", target.Hash.String()
	}
	return found, func(yield func(control.Provider) bool) {
		if target.Hash == (nix.NARHash{}) {
			yield(control.Provider{ID: peerID, Addresses: []string{"/ip4/192.0.2.1/tcp/8461", "/dns4/evil\x1b[2J/tcp/1"}})
		}
	}, nil
}
