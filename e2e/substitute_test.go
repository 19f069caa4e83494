package e2e

import (
	"crypto/sha256"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// The closures here have closurePaths paths, of which one may be large.
var (
	closurePaths = lab.Scale(24, 200)
	largeSize    = int64(lab.Scale(20, 200)) << 20
)

func TestNixSubstitutesFromAPeerWhenTheUpstreamHasLostItsNARs(t *testing.T) {
	m := newTeam(t, closurePaths, largeSize)
	m.upstream.RemoveNARs()
	consumer, store := m.consumer()

	if err := store.Realise(m.root()); err != nil {
		t.Fatal(err)
	}
	m.checkSubstituted(t, store)

	served := m.provider.Status().P2P.Served
	if served == nil || served.Sessions < int64(closurePaths) {
		t.Errorf("provider served %+v, want at least %d sessions", served, closurePaths)
	}
	// Chunks may have travelled compressed, so their bytes are fewer.
	if served != nil && served.Bytes < m.narBytes()/4 {
		t.Errorf("provider served %d bytes of NARs of %d", served.Bytes, m.narBytes())
	}
	got := consumer.Status().NARBytes
	if got["peer"] < uint64(m.narBytes()) || got["upstream"] != 0 {
		t.Errorf("consumer took NAR bytes from %v, want at least %d from peers and none from the upstream", got, m.narBytes())
	}
	if asked := m.upstream.Requests(".narinfo"); len(asked) < closurePaths {
		t.Errorf("upstream was asked for %d narinfos, want at least %d", len(asked), closurePaths)
	}
}

func TestNixSubstitutesFromAPeerWhenTheUpstreamIsOff(t *testing.T) {
	m := newTeam(t, closurePaths, 0)
	m.upstream.Stop()
	consumer, store := m.consumer()

	if err := store.Realise(m.root()); err != nil {
		t.Fatal(err)
	}
	m.checkSubstituted(t, store)
	if got := consumer.Status().NARBytes; got["peer"] < uint64(m.narBytes()) {
		t.Errorf("consumer took NAR bytes from %v, want at least %d from peers", got, m.narBytes())
	}
}

func TestWhoHasSubstitutedProvidesInTurn(t *testing.T) {
	m := newTeam(t, closurePaths, 0)
	m.upstream.RemoveNARs()
	first, store := m.member("first")
	if err := store.Realise(m.root()); err != nil {
		t.Fatal(err)
	}
	// The watcher sees what Nix has registered, and announces it.
	first.WaitAnnounced(closurePaths)
	if err := m.provider.Stop(); err != nil {
		t.Fatal(err)
	}

	_, store = m.consumer()
	if err := store.Realise(m.root()); err != nil {
		t.Fatal(err)
	}
	m.checkSubstituted(t, store)
	if got := first.Status().P2P.Served; got == nil || got.Sessions < int64(closurePaths) {
		t.Errorf("the first consumer served %+v, want at least %d sessions", got, closurePaths)
	}
}

func TestWithoutAPeerTheUpstreamSuppliesTheBytes(t *testing.T) {
	m := newTeam(t, closurePaths, largeSize)
	if err := m.provider.Stop(); err != nil {
		t.Fatalf("provider ended with %v, want exit code 0", err)
	}
	consumer, store := m.consumer()

	if err := store.Realise(m.root()); err != nil {
		t.Fatal(err)
	}
	m.checkSubstituted(t, store)
	if got := consumer.Status().NARBytes; got["upstream"] < uint64(m.narBytes()) || got["peer"] != 0 {
		t.Errorf("consumer took NAR bytes from %v, want at least %d from the upstream", got, m.narBytes())
	}
}

func TestUnmodifiedNixSubstitutesGenuinePathsWithItsBuiltInKey(t *testing.T) {
	l := lab.New(t)
	cache := l.Dir("cache")
	records := l.GenuineCache(cache)
	upstreamDir := l.Dir("upstream")
	l.GenuineCache(upstreamDir)
	upstream := l.Upstream(upstreamDir)
	upstream.RemoveNARs()

	bootstrap := l.Daemon("bootstrap", lab.DaemonConfig{})
	provider := l.Daemon("provider", lab.DaemonConfig{Bootstrap: bootstrap, Cache: cache})
	provider.WaitAnnounced(len(records))
	consumer := l.Daemon("consumer", lab.DaemonConfig{Bootstrap: bootstrap, Upstreams: []string{upstream.URL}})
	store := l.Nix("nix", lab.NixConfig{Substituters: []string{consumer.URL()}})

	substituted := 0
	for _, r := range records {
		if len(r.References) > 0 {
			continue // What it references is not at hand.
		}
		if err := store.Realise(r.StorePath); err != nil {
			t.Error(err)
			continue
		}
		store.Verify(r.StorePath)
		substituted++
	}
	if substituted == 0 {
		t.Error("no genuine path without references was substituted")
	}
}

func TestNARURLResolvesAfterTheStateIsLost(t *testing.T) {
	m := newTeam(t, 3, 0)
	m.upstream.RemoveNARs()
	consumer, _ := m.consumer()
	// The port changes with the restart, as no fixed one is free for sure.
	path := m.closure.Records[0]
	info := getNarinfo(t, consumer.URL(), path.StorePath)

	if err := consumer.Stop(); err != nil {
		t.Fatalf("consumer ended with %v, want exit code 0", err)
	}
	consumer.WipeState()
	consumer.Start()

	nar := get(t, consumer.URL()+"/"+info.URL)
	if got := nix.NARHash(sha256.Sum256(nar)); got != path.NARHash {
		t.Errorf("NAR hash = %v, want %v", got, path.NARHash)
	}
}

func getNarinfo(t *testing.T, url string, path nix.StorePath) *narinfo.Info {
	t.Helper()
	info, err := narinfo.Parse(get(t, url+"/"+path.HashPart().String()+".narinfo"))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("get %s: %s, %v: %.200s", url, resp.Status, err, strings.TrimSpace(string(body)))
	}
	return body
}
