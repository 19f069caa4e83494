package p2p_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p"
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
