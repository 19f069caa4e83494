package p2p_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/delegated"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// Whoever is taken off the list is thrown out, and whoever is put on it comes in,
// without a restart.
func TestAllowFileIsFollowed(t *testing.T) {
	held := newShelf(t, 1<<20)
	part := held.one().StorePath.HashPart()
	annaKey, anna := newIdentity(t)
	benKey, ben := newIdentity(t)
	path := filepath.Join(t.TempDir(), "allow")
	list := func(p peer.ID) {
		if err := os.WriteFile(path, []byte(p.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list(anna)
	provider := start(t, p2p.Config{Profile: p2p.Private, Network: "team", AllowFile: path}, held)
	annas := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Peers: infos(provider), Identity: annaKey}, newShelf(t))
	bens := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Peers: infos(provider), Identity: benKey}, newShelf(t))
	await(t, "anna to get the narinfo", func() bool { return annas.asks(t, part, false) != nil })
	if bens.asks(t, part, false) != nil {
		t.Error("who is not on the list got the narinfo")
	}

	list(ben)
	await(t, "ben to get the narinfo", func() bool { return bens.asks(t, part, false) != nil })
	await(t, "anna to be thrown out", func() bool { return !provider.connected(annas) })
	if annas.asks(t, part, false) != nil {
		t.Error("who is no longer on the list got the narinfo")
	}
}

// An empty file is a list with nobody on it, and not the lack of one.
func TestEmptyAllowFileAllowsNobody(t *testing.T) {
	held := newShelf(t, 1<<20)
	path := filepath.Join(t.TempDir(), "allow")
	if err := os.WriteFile(path, []byte("# nobody yet\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	provider := start(t, p2p.Config{Profile: p2p.Private, Network: "team", AllowFile: path}, held)
	other := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Peers: infos(provider)}, newShelf(t))
	if other.asks(t, held.one().StorePath.HashPart(), false) != nil || provider.connected(other) {
		t.Error("somebody was answered, or connected")
	}
}

func TestPreSharedKeyClosesANetwork(t *testing.T) {
	held := newShelf(t, 1<<20)
	part := held.one().StorePath.HashPart()
	cfg := p2p.Config{Profile: p2p.Private, Network: "team", PSK: bytes.Repeat([]byte{7}, 32), Listen: []ma.Multiaddr{
		ma.StringCast("/ip4/127.0.0.1/tcp/0"), ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1"),
	}}
	provider := start(t, cfg, held)
	for _, addr := range provider.Status().Listening {
		if _, err := addr.ValueForProtocol(ma.P_UDP); err == nil {
			t.Errorf("listens on %v in spite of the key", addr)
		}
	}
	cfg.Peers = infos(provider)
	member := start(t, cfg, newShelf(t))
	await(t, "one with the key to get the narinfo", func() bool { return member.asks(t, part, false) != nil })
	cfg.PSK = bytes.Repeat([]byte{8}, 32)
	other := start(t, cfg, newShelf(t))
	if other.asks(t, part, false) != nil || len(other.Peers()) > 0 {
		t.Error("one with another key got an answer, or a connection")
	}
}

// Once a node has been in a network it depends on no bootstrap peer.
func TestKnownPeersBringANodeBack(t *testing.T) {
	bootstrap := start(t, p2p.Config{Profile: p2p.Private, Network: "team"}, newShelf(t))
	other := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Bootstrap: infos(bootstrap)}, newShelf(t))
	key, _ := newIdentity(t)
	store := newDatastore()
	cfg := p2p.Config{Profile: p2p.Private, Network: "team", Bootstrap: infos(bootstrap), Identity: key, Datastore: store}
	first := start(t, cfg, newShelf(t))
	await(t, "the node and the other to meet", func() bool {
		first.finds(t, routing.ContentKey(nix.NARHash{1}), other) // Nobody has it, but the question goes to the other.
		return first.connected(other)
	})
	first.stop()
	bootstrap.stop()

	again := start(t, cfg, newShelf(t))
	await(t, "the node to come back through the other", func() bool { return again.connected(other) && again.Status().DHT.Peers > 0 })
}

// endpoint serves what a node knows over HTTP, and counts the requests.
func endpoint(t *testing.T, n *node, network string) (url string, requests *atomic.Int32) {
	t.Helper()
	h := delegated.NewHandler(n.Node, &delegated.ServerConfig{Network: network})
	requests = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, requests
}

// A node that takes no part in the DHT finds by an endpoint what others announce
// there, and what the endpoint's own node shares.
func TestDelegatedRoutingInsteadOfTheDHT(t *testing.T) {
	held, own := newShelf(t, 1<<20), newShelf(t, 1<<20)
	tracker := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Answers: true}, own)
	provider := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Bootstrap: infos(tracker)}, held)
	url, _ := endpoint(t, tracker, "team")
	consumer := start(t, p2p.Config{Profile: p2p.Consume, Network: "team", Endpoints: []string{url}, WithoutDHT: true}, nil)
	if s := consumer.Status(); s.DHT != nil || len(s.Endpoints) != 1 {
		t.Errorf("status %+v, want an endpoint and no DHT", s)
	}
	for name, tt := range map[string]struct {
		by *node
		of *shelf
	}{"another node": {provider, held}, "the endpoint's node": {tracker, own}} {
		want := tt.of.one()
		for _, key := range []cid.Cid{routing.ContentKey(want.NARHash), routing.MetadataKey(want.StorePath.HashPart())} {
			await(t, name+" to be found", func() bool { return tracker.finds(t, key, provider) || tt.by == tracker })
			if !consumer.finds(t, key, tt.by) {
				t.Errorf("%s is not found", name)
			}
		}
		if got, err := consumer.fetches(t, want, false); err != nil || !bytes.Equal(got, tt.of.nars[want.NARHash]) {
			t.Errorf("fetched %d bytes from %s (%v), which are not the NAR's %d", len(got), name, err, want.NARSize)
		}
		if got := consumer.asks(t, want.StorePath.HashPart(), false); got == nil {
			t.Errorf("no narinfo from %s", name)
		}
	}
}

// What an endpoint tells is what its network's nodes have announced: not what a
// consumer holds, nor what its node has learned of its neighbours.
func TestEndpointTellsOnlyWhatIsAnnounced(t *testing.T) {
	held, hidden := newShelf(t, 1<<20), newShelf(t, 1<<20)
	neighbour := start(t, p2p.Config{Profile: p2p.LAN, Network: "team"}, hidden)
	tracker := start(t, p2p.Config{Profile: p2p.Consume, Network: "team", Answers: true, Peers: infos(neighbour)}, held)
	secret := hidden.one()
	await(t, "the neighbour to be known to hold the NAR", func() bool {
		tracker.Expect(secret.NARHash, true)
		return tracker.Known(secret.NARHash)
	})
	url, requests := endpoint(t, tracker, "team")
	client := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Endpoints: []string{url}, WithoutDHT: true}, newShelf(t))
	for name, info := range map[string]*narinfo.Info{"consumer": held.one(), "neighbour": secret} {
		for _, key := range []cid.Cid{routing.ContentKey(info.NARHash), routing.MetadataKey(info.StorePath.HashPart())} {
			if client.finds(t, key, tracker) || client.finds(t, key, neighbour) {
				t.Errorf("the endpoint tells what the %s holds", name)
			}
		}
	}
	if requests.Load() == 0 {
		t.Error("the endpoint was not asked")
	}
}

// Asking an endpoint is telling its operator: on the public network about no more
// than strangers may hear of, and in a private one nobody else's.
func TestEndpointsHearNoMoreThanStrangers(t *testing.T) {
	secret := newShelf(t, 1<<20).one()
	part := secret.StorePath.HashPart()
	tracker := start(t, p2p.Config{Profile: p2p.Public, Network: p2p.PublicNetwork, Answers: true}, newShelf(t))
	url, requests := endpoint(t, tracker, "")

	asker := start(t, p2p.Config{Profile: p2p.Public, Network: p2p.PublicNetwork, Endpoints: []string{url}, WithoutDHT: true}, newShelf(t))
	asker.Expect(secret.NARHash, false)
	if _, err := asker.fetches(t, secret, false); err == nil {
		t.Error("fetched a NAR that nobody holds")
	}
	asker.asks(t, part, false)
	if n := requests.Load(); n != 0 {
		t.Errorf("the endpoint got %d requests about what strangers must not hear of", n)
	}
	asker.asks(t, part, true)
	if requests.Load() == 0 {
		t.Error("the endpoint was not asked about what strangers may hear of")
	}

	requests.Store(0)
	member := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Endpoints: []string{url}, WithoutDHT: true}, newShelf(t))
	member.asks(t, part, true)
	for range member.FindProviders(t.Context(), routing.ContentKey(secret.NARHash)) {
		t.Error("found a provider")
	}
	if n := requests.Load(); n != 1 { // Which network it serves.
		t.Errorf("an endpoint of the public network got %d requests from a private one", n)
	}
	if s := member.Status().Endpoints[0]; s.Usable || s.Problem == nil {
		t.Errorf("endpoint's status %+v, want a problem", s)
	}
}
