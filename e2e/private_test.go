package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// recipe makes an app, which needs a library and two sources, a tree and a text.
const (
	recipe = `let
  make = name: text: derivation {
    inherit name text;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "echo \"$text\" >$out" ];
  };
in rec {
  library = make "library" "a library";
  app = make "app" "needs ${library}, ${./source} and ${builtins.toFile "text" "a text"}";
}
`
	recipePaths = 4
)

// workshop is a private network in which one machine builds what is on no
// cache. The upstream is up and has nothing.
type workshop struct {
	*lab.Lab
	upstream  *lab.Upstream
	bootstrap *lab.Daemon
}

func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	w := &workshop{Lab: lab.New(t)}
	w.upstream = w.Upstream(w.Dir("upstream"))
	w.bootstrap = w.Daemon("bootstrap", lab.DaemonConfig{})
	return w
}

// newKey makes a key as a user does.
func (w *workshop) newKey(t *testing.T, name string) (file, public string) {
	t.Helper()
	file = filepath.Join(w.Dir("keys"), name)
	out, err := w.bootstrap.Ctl("key", "generate", name, "--out", file)
	if err != nil {
		t.Fatal(err)
	}
	return file, strings.TrimSpace(out)
}

// recipe writes the recipe and its source into a folder.
func (w *workshop) recipe() string {
	w.File("source", "a source")
	return w.File("app.nix", recipe)
}

// build builds something of the recipe for real.
func (w *workshop) build(t *testing.T, store *lab.Nix, d *lab.Daemon, what string, options ...string) nix.StorePath {
	t.Helper()
	path, err := store.Build(d, w.recipe(), append(options, "-A", what)...)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// sign has the closure of a path signed, and returns how many paths have which
// state, and the whole of what p2pctl says.
func sign(t *testing.T, d *lab.Daemon, store *lab.Nix, key string, path nix.StorePath) (states map[string]int, said string) {
	t.Helper()
	said, err := d.Ctl("sign", "--json", "--key", key, "--store", filepath.Join(store.Root, "nix/store"), path.String())
	if err != nil {
		t.Fatal(err)
	}
	var result struct {
		Paths []struct{ State string }
	}
	if err := json.Unmarshal([]byte(said), &result); err != nil {
		t.Fatal(err)
	}
	states = make(map[string]int)
	for _, p := range result.Paths {
		states[p.State]++
	}
	return states, said
}

// hasNarinfo asks a daemon as Nix does.
func hasNarinfo(t *testing.T, d *lab.Daemon, path nix.StorePath) bool {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.URL()+"/"+path.HashPart().String()+".narinfo", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// witness is a peer that has nothing, and notes what it is asked.
type witness struct {
	exchangetest.Shelf
	asked atomic.Int32
}

func (w *witness) Held(h nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	w.asked.Add(1)
	return w.Shelf.Held(h)
}

func (w *witness) Narinfo(ctx context.Context, part nix.HashPart) (*narinfo.Info, error) {
	w.asked.Add(1)
	return w.Shelf.Narinfo(ctx, part)
}

// newWitness brings a witness into a network, and waits until the first of the
// daemons takes it for a peer that may be asked. Whether the others let it in is
// up to them.
func (w *workshop) newWitness(t *testing.T, network string, first *lab.Daemon, others ...*lab.Daemon) *witness {
	t.Helper()
	stranger := &witness{}
	h := exchangetest.NewMember(t, routing.Family(network))
	prefix := routing.Prefix(network)
	server := exchange.NewServer(h, stranger, exchange.ServerConfig{Prefix: prefix}, zap.NewNop())
	exchangetest.Run(t, h, server, exchange.Protocols(prefix)[0])
	client := exchange.NewClient(h, exchange.ClientConfig{Prefix: prefix}, zap.NewNop())
	for _, d := range others {
		_ = client.Connect(t.Context(), d.AddrInfo()) // It may be refused.
	}
	if err := client.Connect(t.Context(), first.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	w.WaitFor("the stranger to be known", func() bool {
		var peers []control.Peer
		out, err := first.Ctl("peers", "--json")
		if err != nil || json.Unmarshal([]byte(out), &peers) != nil {
			t.Fatalf("p2pctl peers: %v\n%s", err, out)
		}
		return slices.ContainsFunc(peers, func(p control.Peer) bool { return p.ID == h.ID().String() && p.Exchange })
	})
	return stranger
}

// TestATeamSharesItsBuildsWithoutAServer goes from the making of a key to the
// path in a colleague's store.
func TestATeamSharesItsBuildsWithoutAServer(t *testing.T) {
	w := newWorkshop(t)
	key, public := w.newKey(t, "team-1")
	allow := []string{w.bootstrap.PeerID(), w.Identity("builder"), w.Identity("member"), w.Identity("visitor")}

	made := w.Nix("builder", lab.NixConfig{})
	app := w.build(t, made, nil, "app")
	builder := w.Daemon("builder", lab.DaemonConfig{
		Bootstrap: w.bootstrap, StoreRoot: made.Root, Upstreams: []string{w.upstream.URL}, Keys: []string{public}, Allow: allow,
	})
	if hasNarinfo(t, builder, app) {
		t.Error("an unsigned build is known before it was signed")
	}
	if _, err := builder.Ctl("provide", app.String()); err == nil {
		t.Error("an unsigned build can be provided")
	}
	if states, said := sign(t, builder, made, key, app); states["signed"] != recipePaths || len(states) != 1 {
		t.Fatalf("p2pctl sign = %v, want %d paths signed:\n%s", states, recipePaths, said)
	}
	if !hasNarinfo(t, builder, app) {
		t.Error("the builder has not forgotten that nobody knew of the path")
	}
	builder.WaitAnnounced(recipePaths)
	if sigs := made.MustRun("nix", "path-info", "--sigs", app.String()); strings.Contains(sigs, "team-1") {
		t.Errorf("the signature is in Nix's database: %s", sigs)
	}

	store := w.Nix("member", lab.NixConfig{TrustedKeys: []string{public}})
	store.Init()
	member := w.Daemon("member", lab.DaemonConfig{
		Bootstrap: w.bootstrap, StoreRoot: store.Root, Upstreams: []string{w.upstream.URL}, Keys: []string{public}, Allow: allow,
	})
	store.Use(member.URL())
	// The visitor is let in and does not have the key; it has no list of its own.
	visitor := w.Daemon("visitor", lab.DaemonConfig{Bootstrap: w.bootstrap, Upstreams: []string{w.upstream.URL}})
	stranger := w.newWitness(t, "lab", visitor, builder, member)

	if err := store.Realise(app); err != nil {
		t.Fatal(err)
	}
	store.Verify(app)
	got, want := store.Closure(app), made.Closure(app)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("closure at the member = %v, want %v", got, want)
	}
	if bytes := member.Status().NARBytes; bytes["peer"] == 0 || bytes["upstream"] != 0 {
		t.Errorf("the member took NAR bytes from %v, want peers alone", bytes)
	}
	if asked := w.upstream.Requests(app.HashPart().String()); len(asked) == 0 {
		t.Error("the upstream was not asked, so its 404 shows nothing")
	}
	if n := stranger.asked.Load(); n != 0 {
		t.Errorf("a stranger was asked %d times", n)
	}
	// Who has substituted shares in turn: the signatures have come along.
	member.WaitAnnounced(recipePaths)

	if hasNarinfo(t, visitor, app) {
		t.Error("a peer without the key believes the record")
	}
	if stranger.asked.Load() == 0 {
		t.Error("the visitor, who may ask everybody, has not asked the stranger: that nobody else has shows nothing")
	}
}

// TestThePublicNetworkHearsNothingOfPrivateBuilds is about a node among
// strangers that is asked for a team's path, say by a colleague's Nix that was
// not configured yet.
func TestThePublicNetworkHearsNothingOfPrivateBuilds(t *testing.T) {
	w := newWorkshop(t)
	key, public := w.newKey(t, "team-1")
	made := w.Nix("builder", lab.NixConfig{})
	app := w.build(t, made, nil, "app")
	builder := w.Daemon("builder", lab.DaemonConfig{
		Bootstrap: w.bootstrap, StoreRoot: made.Root, Upstreams: []string{w.upstream.URL}, Keys: []string{public},
	})
	sign(t, builder, made, key, app)
	builder.WaitAnnounced(recipePaths)

	outside := w.Daemon("outside", lab.DaemonConfig{Network: "public", Upstreams: []string{w.upstream.URL}, TrustKeys: []string{public}})
	stranger := w.newWitness(t, "public", outside, builder)
	store := w.Nix("outside", lab.NixConfig{Substituters: []string{outside.URL()}, TrustedKeys: []string{public}})
	if err := store.Realise(app); err == nil {
		t.Error("a node of another network got the path")
	}
	if _, err := outside.Ctl("find", app.String()); err == nil {
		t.Error("a node of another network finds the path")
	}
	if n := stranger.asked.Load(); n != 0 {
		t.Errorf("a stranger was asked about a team's path %d times", n)
	}
	// Nor does the builder tell whoever speaks the public network's protocols.
	if _, err := askNarinfo(t, "public", builder, app); err == nil {
		t.Error("the builder answers in the public network")
	}
	if record, err := askNarinfo(t, "lab", builder, app); err != nil || record == nil {
		t.Errorf("in its own network the builder answers %v, %v: that it does not in another shows nothing", record, err)
	}

	// Another path, since that the upstream does not have the first is known.
	other, err := nix.NewStorePath(nix.HashPart{1}, "other")
	if err != nil {
		t.Fatal(err)
	}
	w.upstream.Stop()
	hasNarinfo(t, outside, other)
	if stranger.asked.Load() == 0 {
		t.Error("the stranger is not asked in an outage: that it was not before shows nothing")
	}
}

// askNarinfo asks a daemon for a record as a peer of a network does.
func askNarinfo(t *testing.T, network string, d *lab.Daemon, path nix.StorePath) (*narinfo.Info, error) {
	t.Helper()
	client := exchange.NewClient(exchangetest.NewMember(t, routing.Family(network)), exchange.ClientConfig{Prefix: routing.Prefix(network)}, zap.NewNop())
	if err := client.Connect(t.Context(), d.AddrInfo()); err != nil {
		return nil, err
	}
	records, err := client.Narinfos(t.Context(), d.AddrInfo().ID, []nix.HashPart{path.HashPart()})
	if err != nil {
		return nil, err
	}
	return records[0], nil
}

// TestHookSignsEveryBuild runs the hook that docs/private-builds.md shows.
func TestHookSignsEveryBuild(t *testing.T) {
	w := newWorkshop(t)
	key, public := w.newKey(t, "team-1")
	made := w.Nix("builder", lab.NixConfig{Hook: w.hook(t, key)})
	made.Init()
	builder := w.Daemon("builder", lab.DaemonConfig{Bootstrap: w.bootstrap, StoreRoot: made.Root, Keys: []string{public}})
	w.build(t, made, builder, "app")
	builder.WaitAnnounced(recipePaths)

	// A build does not fail for want of a daemon, nor of a key.
	if err := builder.Stop(); err != nil {
		t.Fatal(err)
	}
	w.build(t, made, builder, "app", "--check")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	w.build(t, made, builder, "app", "--check")
}

// hook writes the hook of the documentation, with a key of the test's.
func (w *workshop) hook(t *testing.T, key string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/private-builds.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := bytes.Cut(doc, []byte("```sh\n#!/bin/sh\n"))
	script, _, ended := bytes.Cut(rest, []byte("```\n"))
	const documented = "/etc/nar-p2p/acme-1.secret"
	if !found || !ended || !bytes.Contains(script, []byte(documented)) {
		t.Fatal("docs/private-builds.md has no hook with its key")
	}
	file := w.File("hook", "#!/bin/sh\n"+strings.ReplaceAll(string(script), documented, key))
	if err := os.Chmod(file, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestIndependentBuildersVouchForEachOther has a second builder substitute what
// the first has built, build it again, and sign it too.
func TestIndependentBuildersVouchForEachOther(t *testing.T) {
	w := newWorkshop(t)
	var keys, public [2]string
	for i, name := range []string{"first-1", "second-1"} {
		keys[i], public[i] = w.newKey(t, name)
	}
	builder := func(name string) (*lab.Daemon, *lab.Nix) {
		store := w.Nix(name, lab.NixConfig{TrustedKeys: public[:]})
		store.Init()
		d := w.Daemon(name, lab.DaemonConfig{Bootstrap: w.bootstrap, StoreRoot: store.Root, Upstreams: []string{w.upstream.URL}, Keys: public[:]})
		store.Use(d.URL())
		return d, store
	}
	first, firstStore := builder("first")
	second, secondStore := builder("second")
	app := w.build(t, firstStore, nil, "app")
	sign(t, first, firstStore, keys[0], app)
	first.WaitAnnounced(recipePaths)

	careful := lab.DaemonConfig{Bootstrap: w.bootstrap, Upstreams: []string{w.upstream.URL}, Keys: public[:], Threshold: 2}
	if hasNarinfo(t, w.Daemon("early", careful), app) {
		t.Error("one signature is enough where two are wanted")
	}

	if err := secondStore.Realise(app); err != nil {
		t.Fatal(err)
	}
	if states, said := sign(t, second, secondStore, keys[1], app); states["signed"] != 0 {
		t.Errorf("what was substituted is signed: %v\n%s", states, said)
	}
	// Nix builds again what it has, and finds the same.
	w.build(t, secondStore, nil, "library", "--check")
	w.build(t, secondStore, nil, "app", "--check")
	if states, said := sign(t, second, secondStore, keys[1], app); states["signed"] != recipePaths {
		t.Errorf("of what was built again, p2pctl sign = %v, want %d paths signed:\n%s", states, recipePaths, said)
	}
	second.WaitAnnounced(recipePaths)

	late := w.Daemon("late", careful)
	store := w.Nix("careful", lab.NixConfig{Substituters: []string{late.URL()}, TrustedKeys: public[:]})
	if err := store.Realise(app); err != nil {
		t.Fatal(err)
	}
	store.Verify(app)
}
