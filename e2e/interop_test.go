//go:build interop

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// TestKubo is about the promise that any IPFS tool finds what a node provides,
// and the other way round: with kubo, in a public network of the test's own.
func TestKubo(t *testing.T) {
	l := lab.New(t)
	segment := l.Segment()
	cache := l.Dir("cache")
	records := l.GenuineCache(cache)
	home := segment.Host("bootstrap")
	bootstrap := l.Daemon("bootstrap", lab.DaemonConfig{Host: home, Network: "public", Infrastructure: true, ServeRouting: home.Addr + ":8462"})
	provider := l.Daemon("provider", lab.DaemonConfig{Host: segment.Host("provider"), Network: "public", Cache: cache, Bootstrap: bootstrap})
	kubo := l.Kubo("server", lab.KuboConfig{Host: segment.Host("kubo"), Routing: "dhtserver", Bootstrap: bootstrap})
	l.WaitFor("the provider and kubo to be servers of one DHT", func() bool { return provider.Status().P2P.RoutingPeers >= 2 })
	provider.WaitAnnounced(len(records))

	record := records[0]
	content, metadata := routing.ContentKey(record.NARHash).String(), routing.MetadataKey(record.StorePath.HashPart()).String()
	for _, cid := range []string{content, metadata} {
		l.WaitFor("kubo to find the provider of "+cid, func() bool {
			found, err := kubo.Run("routing", "findprovs", cid)
			return err == nil && strings.Contains(found, provider.PeerID())
		})
	}

	out, err := kubo.Run("id", provider.PeerID())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{provider.PeerID(), "nar-p2p/", "/nar-p2p/have/1", "/nar-p2p/nar/1"} {
		if !strings.Contains(out, want) {
			t.Errorf("ipfs id: %s does not have %q", out, want)
		}
	}
	if out, err := kubo.Run("ping", "-n", "3", provider.PeerID()); err != nil || strings.Count(out, "Pong received") != 3 {
		t.Errorf("ipfs ping: %s, %v; want 3 answers", out, err)
	}

	// The other way round.
	file := filepath.Join(l.Dir("files"), "hello")
	if err := os.WriteFile(file, []byte("hello from kubo"), 0o600); err != nil {
		t.Fatal(err)
	}
	cid, err := kubo.Run("add", "--quieter", "--cid-version=1", "--raw-leaves", file)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := kubo.Run("routing", "provide", cid); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if out, err := provider.Ctl("find", cid); err != nil || !strings.Contains(out, kubo.PeerID()) {
		t.Errorf("p2pctl find %s: %s, %v; want %s", cid, out, err, kubo.PeerID())
	}

	// And by HTTP, for a kubo that takes no part in the DHT.
	delegated := l.Kubo("delegated", lab.KuboConfig{
		Host: segment.Host("delegated"), Routing: "delegated", Routers: []string{bootstrap.Status().ServesRouting}, Bootstrap: bootstrap,
	})
	for cid, want := range map[string]string{content: provider.PeerID(), metadata: provider.PeerID(), cid: kubo.PeerID()} {
		if found, err := delegated.Run("routing", "findprovs", cid); err != nil || !strings.Contains(found, want) {
			t.Errorf("ipfs routing findprovs %s by the endpoint: %q, %v; want %s", cid, found, err, want)
		}
	}
}
