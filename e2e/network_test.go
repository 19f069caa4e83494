package e2e_test

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// A laptop is opened before it has a network. Its daemon starts all the same, and
// joins when the network comes.
func TestStartedOffline(t *testing.T) {
	for _, network := range []string{"public", "team"} {
		t.Run(network, func(t *testing.T) {
			l := lab.New(t)
			segment := l.Segment()
			bootstrap := l.Daemon("bootstrap", lab.DaemonConfig{Host: segment.Host("bootstrap"), Network: network, Infrastructure: true})
			laptop := segment.Host("laptop")
			laptop.Unplug()
			d := l.Daemon("laptop", lab.DaemonConfig{Host: laptop, Network: network, Bootstrap: bootstrap})
			if s := d.Status().P2P; s.Connected != 0 || s.RoutingPeers != 0 {
				t.Errorf("without a network %d peers are connected, %d in the DHT", s.Connected, s.RoutingPeers)
			}
			laptop.Plug()
			l.WaitFor("the laptop to join", func() bool { return d.Status().P2P.RoutingPeers > 0 })

			// And once more, when it was asleep.
			laptop.Unplug()
			l.WaitFor("the loss to be noticed", func() bool { return d.Status().P2P.Connected == 0 })
			laptop.Plug()
			l.WaitFor("the laptop to join again", func() bool { return d.Status().P2P.Connected > 0 && d.Status().P2P.RoutingPeers > 0 })
		})
	}
}

// An office has a network of its own, no infrastructure, and no public address:
// what its machines hold can be announced and found all the same.
func TestOfficeWithoutInfrastructure(t *testing.T) {
	l := lab.New(t)
	net := l.Net()
	cache := l.Dir("cache")
	records := l.GenuineCache(cache)
	holder := l.Daemon("holder", lab.DaemonConfig{Host: net.Host("192.168.5.1", lab.Line{}), Cache: cache})
	other := l.Daemon("other", lab.DaemonConfig{Host: net.Host("192.168.5.2", lab.Line{}), Bootstrap: holder})
	third := l.Daemon("third", lab.DaemonConfig{Host: net.Host("192.168.5.3", lab.Line{}), Bootstrap: other})
	holder.WaitAnnounced(len(records))
	path := records[0].StorePath.String()
	l.WaitFor("the third to find the path", func() bool {
		found, err := third.Ctl("find", path)
		return err == nil && strings.Contains(found, holder.Status().P2P.PeerID)
	})
	if _, err := third.Ctl("fetch", path, "-o", filepath.Join(l.Dir("out"), "nar")); err != nil {
		t.Error(err)
	}
}

// A private network and the public one share a local network, and one public node
// even knows the address of a private one. Neither dials the other's nodes by
// itself, asks them, or answers them.
func TestPrivateNetworkKeepsToItself(t *testing.T) {
	l := lab.New(t)
	segment := l.Segment()
	host := func(name string) *lab.Host {
		h := segment.Host(name)
		h.JoinLAN()
		h.Watch()
		return h
	}
	// Each network has a path that the other does not have.
	teamsCache, publicCache := l.Dir("team"), l.Dir("public")
	records := l.GenuineCache(teamsCache)
	l.GenuineCache(publicCache)
	secret, known := records[0], records[1]
	l.Hide(filepath.Join(publicCache, secret.StorePath.HashPart().String()+".narinfo"))
	l.Hide(filepath.Join(teamsCache, known.StorePath.HashPart().String()+".narinfo"))

	// The team's infrastructure is elsewhere: libp2p's AutoNAT refuses to try whoever
	// it is connected with by a private address, and by which address two hosts of
	// one local network meet is chance.
	elsewhere := segment.Host("team-a")
	elsewhere.StayOutside()
	elsewhere.Watch()
	team := []*lab.Host{elsewhere, host("team-b"), host("team-c")}
	boot := l.Daemon("team-a", lab.DaemonConfig{Host: team[0], Network: "team", Infrastructure: true})
	holder := l.Daemon("team-b", lab.DaemonConfig{Host: team[1], Network: "team", Bootstrap: boot, Cache: teamsCache})
	member := l.Daemon("team-c", lab.DaemonConfig{Host: team[2], Network: "team"})

	publicBoot := l.Daemon("public-a", lab.DaemonConfig{Host: host("public-a"), Network: "public", Infrastructure: true})
	strangers := host("public-b")
	stranger := l.Daemon("public-b", lab.DaemonConfig{Host: strangers, Network: "public", Bootstrap: publicBoot, Cache: publicCache, Peer: holder})
	neighbour := l.Daemon("public-c", lab.DaemonConfig{Host: host("public-c"), Network: "public"})

	// Both networks work, and both by mDNS alone.
	holder.WaitAnnounced(len(records) - 1)
	stranger.WaitAnnounced(len(records) - 1)
	out := l.Dir("out")
	for name, tt := range map[string]struct {
		by            *lab.Daemon
		has, has404   string
		exchangeWants *lab.Daemon
	}{
		"team":   {member, secret.StorePath.String(), known.StorePath.String(), holder},
		"public": {neighbour, known.StorePath.String(), secret.StorePath.String(), stranger},
	} {
		l.WaitFor(name+" to meet on the local network", func() bool { return tt.by.Speaks(tt.exchangeWants) })
		if _, err := tt.by.Ctl("fetch", tt.has, "-o", filepath.Join(out, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := tt.by.Ctl("fetch", tt.has404, "-o", filepath.Join(out, name+"-404")); err == nil {
			t.Errorf("%s: fetched from the other network", name)
		}
	}
	// The stranger knows the address of the only one that has it.
	if _, err := stranger.Ctl("fetch", secret.StorePath.String(), "-o", filepath.Join(out, "secret")); err == nil {
		t.Error("the stranger fetched from the private network")
	}
	if _, err := stranger.Ctl("find", secret.NARHash.String()); err == nil {
		t.Error("the stranger found a provider of the private network")
	}
	if !slices.ContainsFunc(strangers.Dialled(), func(to netip.AddrPort) bool {
		return to.Addr().String() == team[1].Addr || to.Addr().String() == team[1].LAN
	}) {
		t.Error("the stranger has not even dialled the holder")
	}
	l.WaitFor("the holder to send the stranger away", func() bool { return !holder.ConnectedTo(stranger) })

	// Who is reachable is what infrastructure tells its own network. Libp2p asks
	// again 90 s after it has asked in vain.
	l.WaitLonger("the holder to know that it can be reached", 4*time.Minute, func() bool {
		return holder.Status().P2P.Reachability == "public"
	})
	for _, d := range []*lab.Daemon{boot, holder, member} {
		if got := d.Status().P2P.RoutingPeers; got > 2 {
			t.Errorf("%d nodes in the DHT of a network of three", got)
		}
	}
	members := make(map[netip.Addr]bool)
	for _, h := range team {
		members[netip.MustParseAddr(h.Addr)] = true
		if h.LAN != "" {
			members[netip.MustParseAddr(h.LAN)] = true
		}
	}
	for _, h := range team {
		dialled := h.Dialled()
		if len(dialled) == 0 {
			t.Errorf("nothing was dialled from %s: the watch does not work", h.Addr)
		}
		for _, to := range dialled {
			// By multicast go mDNS and the search for a router that maps ports.
			if !members[to.Addr()] && !to.Addr().IsMulticast() {
				t.Errorf("%s has dialled %v", h.Addr, to)
			}
		}
	}
}
