package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// office is machines on local networks, without any bootstrap peer, upstream or
// way to the internet.
type office struct {
	*lab.Lab
	t   *testing.T
	key narinfo.SecretKey
	// profile is that of all daemons.
	profile string
}

func newOffice(t *testing.T, profile string) *office {
	t.Helper()
	key, err := narinfo.GenerateSecretKey("office-1")
	if err != nil {
		t.Fatal(err)
	}
	return &office{Lab: lab.New(t), t: t, key: key, profile: profile}
}

func (o *office) keys() []string { return []string{o.key.Public().String()} }

// publish makes a closure, the seed's own, and a binary cache of it.
func (o *office) publish(paths int, seed uint64, largeSize int64) (dir string, c *closure.Closure) {
	o.t.Helper()
	dir = o.Dir("cache-" + string(rune('a'+seed)))
	c, err := closure.Generate(o.t.Context(), dir, closure.Config{Paths: paths, Seed: seed, Key: o.key, LargeSize: largeSize})
	if err != nil {
		o.t.Fatal(err)
	}
	return dir, c
}

// holder starts a daemon that shares a binary cache of so many paths.
func (o *office) holder(name string, host *lab.Host, dir string, paths int, peers ...*lab.Daemon) *lab.Daemon {
	o.t.Helper()
	d := o.Daemon(name, lab.DaemonConfig{
		Host: host, Profile: o.profile, Cache: dir, Keys: o.keys(), Peer: first(peers),
	})
	d.WaitShared(paths)
	return d
}

// holderAnywhere is holder on a host whose address changes.
func (o *office) holderAnywhere(name string, host *lab.Host, dir string, paths int) *lab.Daemon {
	o.t.Helper()
	d := o.Daemon(name, lab.DaemonConfig{
		Host: host, Profile: o.profile, Cache: dir, Keys: o.keys(), Anywhere: true,
	})
	d.WaitShared(paths)
	return d
}

// desk starts a daemon without a store, and an empty Nix store that substitutes
// through it.
func (o *office) desk(name string, host *lab.Host, peers ...*lab.Daemon) (*lab.Daemon, *lab.Nix) {
	o.t.Helper()
	d := o.Daemon(name, lab.DaemonConfig{Host: host, Profile: o.profile, Keys: o.keys(), Peer: first(peers)})
	store := o.Nix(name, lab.NixConfig{Host: host, Substituters: []string{d.URL()}, TrustedKeys: o.keys()})
	store.Init()
	return d, store
}

// first returns the static peer, or nil.
func first(peers []*lab.Daemon) *lab.Daemon {
	if len(peers) == 0 {
		return nil
	}
	return peers[0]
}

// realise substitutes a closure, and tells how long that took.
func (o *office) realise(store *lab.Nix, root nix.StorePath) time.Duration {
	o.t.Helper()
	start := time.Now()
	if err := store.Realise(root); err != nil {
		o.t.Fatal(err)
	}
	took := time.Since(start)
	store.Verify(root)
	return took
}

func TestNodesOnALANNeedNobodyElse(t *testing.T) {
	for _, profile := range []string{"lan", "private"} {
		t.Run(profile, func(t *testing.T) {
			o := newOffice(t, profile)
			lan := o.LAN(1)
			dir, c := o.publish(closurePaths, 1, 0)
			o.holder("holder", lan.Host("holder"), dir, closurePaths)

			start := time.Now()
			// Nix asks at once, when the desk has met nobody yet, and asks once only.
			desk, store := o.desk("desk", lan.Host("desk"))
			ready := time.Since(start)
			took := o.realise(store, c.Root().StorePath)
			t.Logf("daemon ready after %v, closure of %d paths after another %v", ready, closurePaths, took)

			// A third comes later, and is found by those who are there.
			dir, c = o.publish(closurePaths, 2, 0)
			o.holder("late", lan.Host("late"), dir, closurePaths)
			o.WaitFor("the one who is late to be met", func() bool { return peers(desk) == 2 })
			t.Logf("closure of one that has just come: %v", o.realise(store, c.Root().StorePath))
		})
	}
}

func TestLANWithoutIPv6(t *testing.T) {
	o := newOffice(t, "lan")
	lan := o.LAN(1)
	dir, c := o.publish(3, 1, 0)
	holder, desk := lan.Host("holder"), lan.Host("desk")
	holder.NoIPv6()
	desk.NoIPv6()
	o.holder("holder", holder, dir, 3)
	_, store := o.desk("desk", desk)
	o.realise(store, c.Root().StorePath)
}

// A router passes no multicast on, nor does a VPN.
func TestStaticPeersReachAcrossSubnets(t *testing.T) {
	o := newOffice(t, "lan")
	here, there := o.LAN(1), o.LAN(2)
	here.Join(there)
	dir, c := o.publish(3, 1, 0)
	holder := o.holder("holder", there.Host("holder"), dir, 3)
	_, store := o.desk("desk", here.Host("desk"), holder)
	o.realise(store, c.Root().StorePath)
}

// peers counts the connected peers of a daemon that speak its protocols.
func peers(d *lab.Daemon) (n int) {
	for _, p := range d.Peers() {
		if p.Exchange {
			n++
		}
	}
	return n
}

// A laptop is suspended, carried to another room and gets another address there.
func TestNeighboursMeetAgainUnderAnotherAddress(t *testing.T) {
	o := newOffice(t, "lan")
	lan := o.LAN(1)
	dir, c := o.publish(3, 1, 0)
	host := lan.Host("holder")
	o.holderAnywhere("holder", host, dir, 3)
	desk, store := o.desk("desk", lan.Host("desk"))
	o.WaitFor("the neighbours to meet", func() bool { return peers(desk) == 1 })

	host.Readdress()
	start := time.Now()
	o.WaitFor("the neighbours to meet again", func() bool {
		for _, p := range desk.Peers() {
			if p.Exchange && strings.Contains(p.Addresses[0], host.Addr+"/") {
				return true
			}
		}
		return false
	})
	t.Logf("met again after %v", time.Since(start))
	o.realise(store, c.Root().StorePath)
}

// A cable comes loose, which nobody is told of, and is put back.
func TestNeighboursMeetAgainAfterASilence(t *testing.T) {
	o := newOffice(t, "lan")
	lan := o.LAN(1)
	dir, first := o.publish(3, 1, 0)
	second, err := closure.Generate(t.Context(), dir, closure.Config{Paths: 3, Seed: 2, Key: o.key})
	if err != nil {
		t.Fatal(err)
	}
	host := lan.Host("holder")
	o.holder("holder", host, dir, 6)
	desk, store := o.desk("desk", lan.Host("desk"))
	o.WaitFor("the neighbours to meet", func() bool { return peers(desk) == 1 })

	host.Silence()
	start := time.Now()
	if err := store.Realise(first.Root().StorePath); err == nil {
		t.Error("substituted from a machine that is off the network")
	}
	o.WaitFor("the loss to be noticed", func() bool { return peers(desk) == 0 })
	t.Logf("loss noticed, and Nix told, after %v", time.Since(start))
	host.Unsilence()
	start = time.Now()
	o.WaitFor("the neighbours to meet again", func() bool { return peers(desk) == 1 })
	t.Logf("met again after %v", time.Since(start))
	o.realise(store, second.Root().StorePath)
}

func TestNodeThatStartsOfflineJoinsTheLAN(t *testing.T) {
	o := newOffice(t, "lan")
	lan := o.LAN(1)
	dir, c := o.publish(3, 1, 0)
	host := lan.Host("holder")
	host.DropAddr()
	o.holderAnywhere("holder", host, dir, 3)
	desk, store := o.desk("desk", lan.Host("desk"))

	host.Readdress()
	start := time.Now()
	o.WaitFor("the neighbours to meet", func() bool { return peers(desk) == 1 })
	t.Logf("met after %v", time.Since(start))
	o.realise(store, c.Root().StorePath)
}

// One of two neighbours goes in the middle of a transfer, without a word: what
// is left comes from the other.
func TestNeighbourThatLeavesIsReplaced(t *testing.T) {
	for name, leave := range map[string]func(*lab.Host, *lab.Daemon){
		"killed":    func(_ *lab.Host, d *lab.Daemon) { d.Kill() },
		"unplugged": func(h *lab.Host, _ *lab.Daemon) { h.Silence() },
	} {
		t.Run(name, func(t *testing.T) {
			const size = 16 << 20
			o := newOffice(t, "lan")
			lan := o.LAN(1)
			dir, c := o.publish(3, 1, size)
			var hosts []*lab.Host
			var holders []*lab.Daemon
			for _, name := range []string{"one", "two"} {
				host := lan.Host(name)
				host.Slow(size * 8 / 2) // Two seconds, all in all.
				hosts = append(hosts, host)
				holders = append(holders, o.holder(name, host, dir, 3))
			}
			desk, store := o.desk("desk", lan.Host("desk"))
			o.WaitFor("the neighbours to meet", func() bool { return peers(desk) == 2 })

			realised := make(chan error, 1)
			go func() { realised <- store.Realise(c.Root().StorePath) }()
			o.WaitFor("the transfer to be under way", func() bool { return desk.Status().NARBytes["peer"] > size/8 })
			gone := 0
			if holders[1].Status().P2P.Served.ActiveSessions > 0 {
				gone = 1
			}
			before := desk.Status().NARBytes["peer"]
			leave(hosts[gone], holders[gone])
			left := time.Now()
			o.WaitFor("the transfer to go on", func() bool { return desk.Status().NARBytes["peer"] > before+size/8 })
			t.Logf("another eighth had come %v after one had left", time.Since(left))

			if err := <-realised; err != nil {
				t.Fatal(err)
			}
			store.Verify(c.Root().StorePath)
			if served := holders[1-gone].Status().P2P.Served; served.Bytes == 0 {
				t.Error("the other neighbour has served nothing")
			}
		})
	}
}
