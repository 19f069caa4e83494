package e2e

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// kept is a path in a provider's store, and what peers may know of it.
type kept struct {
	path   nix.StorePath
	hash   nix.NARHash
	shared bool
}

// newKept fills a store with one path that may be shared, and with all kinds
// that may not.
func newKept(t *testing.T, l *lab.Lab, store *lab.Nix, share, trusted narinfo.SecretKey) map[string]*kept {
	t.Helper()
	forged, err := narinfo.GenerateSecretKey(share.Name)
	if err != nil {
		t.Fatal(err)
	}
	paths := make(map[string]*kept)
	add := func(name, text string, signers ...narinfo.SecretKey) {
		out := store.MustRun("nix-store", text, l.File(name, "content of "+name))
		paths[name] = newPath(t, l, store, out, signers...)
	}
	add("shared", "--add", share)
	add("unsigned", "--add")
	add("trusted-key", "--add", trusted)
	add("forged", "--add", forged)
	drv := store.MustRun("nix-instantiate", "-E", `derivation { name = "recipe"; system = "none"; builder = "none"; }`)
	paths["derivation"] = newPath(t, l, store, drv, share)
	paths["shared"].shared = true
	return paths
}

func newPath(tb testing.TB, l *lab.Lab, store *lab.Nix, out string, signers ...narinfo.SecretKey) *kept {
	tb.Helper()
	path, err := nix.ParseStorePath(strings.TrimSpace(out))
	if err != nil {
		tb.Fatal(err)
	}
	sign := []string{"store", "sign"}
	if path.IsDerivation() {
		sign = append(sign, "--derivation") // Not its outputs.
	}
	for _, key := range signers {
		store.MustRun("nix", append(sign, "--key-file", l.File("key", key.Text()), path.String())...)
	}
	hash, err := nix.ParseNARHash(strings.TrimSpace(store.MustRun("nix-store", "--query", "--hash", path.String())))
	if err != nil {
		tb.Fatal(err)
	}
	return &kept{path: path, hash: hash}
}

func TestWhatMayNotBeSharedDoesNotExistForPeers(t *testing.T) {
	l := lab.New(t)
	var keys [2]narinfo.SecretKey
	for i, name := range []string{"share-1", "trusted-1"} {
		var err error
		if keys[i], err = narinfo.GenerateSecretKey(name); err != nil {
			t.Fatal(err)
		}
	}
	store := l.Nix("provider", lab.NixConfig{})
	paths := newKept(t, l, store, keys[0], keys[1])

	share, both := []string{keys[0].Public().String()}, []string{keys[0].Public().String(), keys[1].Public().String()}
	bootstrap := l.Daemon("bootstrap", lab.DaemonConfig{})
	provider := l.Daemon("provider", lab.DaemonConfig{Bootstrap: bootstrap, StoreRoot: store.Root, ShareKeys: share, TrustKeys: both})
	provider.WaitAnnounced(1)
	consumer := l.Daemon("consumer", lab.DaemonConfig{Bootstrap: bootstrap, ShareKeys: share, TrustKeys: both})

	client, server := newClient(t, provider)
	probes := newProber(t, provider)
	for name, p := range paths {
		t.Run(name, func(t *testing.T) {
			checkFind(t, consumer, p)
			checkProtocols(t, client, server, p)
		})
		if !p.shared {
			probes.wantAbsent(name, p)
		}
	}
	t.Run("provide says why", func(t *testing.T) {
		for name, p := range paths {
			if _, err := provider.Ctl("provide", p.path.String()); (err == nil) != p.shared {
				t.Errorf("p2pctl provide of %s: %v", name, err)
			}
		}
	})
}

// checkFind looks for a path through the DHT as a user does.
func checkFind(t *testing.T, from *lab.Daemon, p *kept) {
	t.Helper()
	for _, target := range []string{p.path.String(), p.hash.String(), routing.ContentKey(p.hash).String()} {
		out, err := from.Ctl("find", target)
		if found := err == nil; found != p.shared {
			t.Errorf("p2pctl find %s: found is %v, want %v: %v\n%s", target, found, p.shared, err, out)
		}
		var exit *exec.ExitError
		if !p.shared && (!errors.As(err, &exit) || exit.ExitCode() != 4) {
			t.Errorf("p2pctl find %s: %v, want exit code 4", target, err)
		}
	}
}

// newClient returns a client of the stream protocols that is connected with a
// daemon.
func newClient(t *testing.T, d *lab.Daemon) (*exchange.Client, *lab.Daemon) {
	t.Helper()
	h := exchangetest.NewMember(t, routing.Family("lab"))
	client := exchange.NewClient(h, exchange.ClientConfig{Prefix: routing.Prefix("lab")}, zap.NewNop())
	if err := client.Connect(t.Context(), d.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	return client, d
}

// checkProtocols asks a daemon about a path by each of its protocols.
func checkProtocols(t *testing.T, client *exchange.Client, server *lab.Daemon, p *kept) {
	t.Helper()
	id := server.AddrInfo().ID
	held, err := client.Have(t.Context(), id, []nix.NARHash{p.hash})
	if err != nil || held[0].Held != p.shared {
		t.Errorf("have = %v, %v, want held %v", held, err, p.shared)
	}
	records, err := client.Narinfos(t.Context(), id, []nix.HashPart{p.path.HashPart()})
	if err != nil || (records[0] != nil) != p.shared {
		t.Errorf("narinfo = %v, %v, want a record: %v", records, err, p.shared)
	}
	session, err := client.OpenNAR(t.Context(), id, p.hash, false)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if _, _, err := session.Opened(); (err == nil) != p.shared || !p.shared && !errors.Is(err, exchange.ErrNotHeld) {
		t.Errorf("nar session: %v, want one: %v", err, p.shared)
	}
}

// On the public network everyone is a stranger. What only a private cache
// knows is fetched from there, and no stranger learns of it; the bytes of what
// a public one knows come from a stranger.
func TestStrangersAreNotAskedAboutWhatOnlyAPrivateCacheKnows(t *testing.T) {
	l := lab.New(t)
	segment := l.Segment()
	held, publicCache, privateCache := l.Dir("held"), l.Dir("public-cache"), l.Dir("private-cache")
	records := l.GenuineCache(held)
	l.GenuineCache(publicCache)
	l.GenuineCache(privateCache)
	secret, known := records[0], records[1]
	for _, r := range records {
		if r != secret {
			l.Hide(filepath.Join(privateCache, r.StorePath.HashPart().String()+".narinfo"))
		}
	}
	l.Hide(filepath.Join(publicCache, secret.StorePath.HashPart().String()+".narinfo"))
	l.Hide(filepath.Join(publicCache, "nar"))

	bootstrap := l.Daemon("bootstrap", lab.DaemonConfig{Host: segment.Host("bootstrap"), Network: "public", Infrastructure: true})
	stranger := l.Daemon("stranger", lab.DaemonConfig{Host: segment.Host("stranger"), Network: "public", Cache: held, Bootstrap: bootstrap})
	stranger.WaitAnnounced(len(records))
	home := segment.Host("home")
	private := l.Daemon("private", lab.DaemonConfig{Host: home, Network: "public", Profile: "off", Cache: privateCache})
	public := l.Daemon("public", lab.DaemonConfig{Host: home, Network: "public", Profile: "off", Cache: publicCache})
	consumer := l.Daemon("consumer", lab.DaemonConfig{
		Host: home, Network: "public", Bootstrap: bootstrap,
		Upstreams: []string{public.URL()}, PrivateUpstreams: []string{private.URL()},
	})
	l.WaitFor("the consumer to join", func() bool { return consumer.Status().P2P.RoutingPeers > 0 })

	if _, err := consumer.Ctl("fetch", secret.StorePath.String(), "-o", filepath.Join(l.Dir("out"), "secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := consumer.Ctl("find", secret.StorePath.String()); err == nil {
		t.Error("p2pctl find looked for a path of a private cache")
	}
	if got := stranger.Status().P2P.Served; got.Queries != 0 || got.Sessions != 0 {
		t.Errorf("the stranger was asked about a private path: %+v", got)
	}

	// The same for a path that strangers may hear of shows that they do.
	if _, err := consumer.Ctl("fetch", known.StorePath.String(), "-o", filepath.Join(l.Dir("out"), "known")); err != nil {
		t.Fatal(err)
	}
	if got := stranger.Status().P2P.Served; got.Sessions == 0 {
		t.Errorf("the stranger served %+v, want a session", got)
	}
}
