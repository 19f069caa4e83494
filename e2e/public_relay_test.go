package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// In the public network a node behind a NAT, which knows nobody who relays, finds
// relays among the DHT's peers: strangers, which let through what any node of IPFS
// does. By way of these it is found and reached, directly in the end, by a node behind
// another NAT; and when one of them dies it finds another.
func TestRelaysOfThePublicNetwork(t *testing.T) {
	t.Parallel()
	a := &abroad{Lab: lab.New(t), tb: t}
	a.cache = a.Dir("cache")
	records := a.GenuineCache(a.cache)
	a.internet = a.Internet()
	boot := a.Stranger(a.internet.Host("boot"), false)
	relays := make(map[string]*lab.Stranger)
	for _, name := range []string{"relay-a", "relay-b", "relay-c"} {
		s := a.Stranger(a.internet.Host(name), true, boot)
		relays[s.ID] = s
	}

	begin := time.Now()
	holder := a.Daemon("holder", lab.DaemonConfig{
		Host: a.at("holder", 1), Network: "public", Anywhere: true, Cache: a.cache, Known: boot.Addrs,
	})
	a.WaitFor("the holder to join", func() bool { return holder.Status().P2P.RoutingPeers > 0 })
	t.Logf("joined after %v", time.Since(begin))
	used := func() []string { return holder.Status().P2P.Reach.Relays }
	a.WaitFor("the holder to find relays", func() bool { return len(used()) == 2 })
	t.Logf("relays found after %v: %+v", time.Since(begin), holder.Status().P2P.Reach)
	if said := told(t, holder); !strings.Contains(said, "Others find this node through 2 relays") || !strings.Contains(said, "switch on port mapping (UPnP or NAT-PMP) in the router") {
		t.Errorf("p2pctl status: %s", said)
	}
	holder.WaitAnnounced(len(records))
	consumer := func(name string) *lab.Daemon {
		d := a.Daemon(name, lab.DaemonConfig{
			Host: a.at(name, 1), Network: "public", Anywhere: true, Known: boot.Addrs,
		})
		a.WaitFor(name+" to join", func() bool { return d.Status().P2P.RoutingPeers > 0 })
		return d
	}
	took, ways := a.fetch(consumer("consumer"), records[0])
	t.Logf("a NAR by %s after %v", ways, took)
	if ways != "direct" {
		t.Errorf("came by %q, want a direct connection", ways)
	}

	later := consumer("later")
	dead := used()[0]
	relays[dead].Kill()
	begin = time.Now()
	a.WaitLonger("another relay", 2*time.Minute, func() bool {
		now := used()
		return len(now) == 2 && !slices.Contains(now, dead)
	})
	t.Logf("another relay after %v", time.Since(begin))
	if took, ways := a.fetch(later, records[1]); ways != "direct" {
		t.Errorf("with another relay came by %q after %v", ways, took)
	}
}

// told is what p2pctl status says, in one line.
func told(t *testing.T, d *lab.Daemon) string {
	t.Helper()
	said, err := d.Ctl("status")
	if err != nil {
		t.Error(err)
	}
	return strings.Join(strings.Fields(said), " ")
}
