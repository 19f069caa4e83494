package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// One side has a public address, the other is behind a NAT, or behind two.
func TestOneSideBehindANAT(t *testing.T) {
	for name, tt := range map[string]struct {
		holder, consumer int // how many NATs they are behind
	}{
		"holder":        {1, 0},
		"consumer":      {0, 1},
		"holder by two": {2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAbroad(t, 2<<20, lab.DaemonConfig{})
			holder := a.holder("holder", a.at("holder", tt.holder))
			consumer := a.consumer("consumer", a.at("consumer", tt.consumer), lab.DaemonConfig{})
			took, ways := a.fetch(consumer, a.large())
			t.Logf("by %s after %v", ways, took)
			if ways != "direct" {
				t.Errorf("came by %q, want a direct connection", ways)
			}
			if tt.holder > 1 {
				a.WaitFor("the holder to say what its router is behind", func() bool {
					return strings.Contains(told(t, holder), "the router maps ports, but is itself behind a NAT, at 192.168.1.1.")
				})
			}
		})
	}
}

// at makes a host behind so many NATs, of which the inner ones map ports, to no avail.
func (a *abroad) at(name string, nats int) *lab.Host {
	a.tb.Helper()
	segment := a.internet
	for i := range nats {
		segment = segment.NAT(fmt.Sprintf("nat-%s-%d", name, i), lab.NATConfig{MapsPorts: i > 0}).Segment
	}
	return segment.Host(name)
}

// Behind firewalls of IPv6 holes are punched as well, though a router of IPv4 lets
// none through.
func TestPunchingThroughIPv6Firewalls(t *testing.T) {
	t.Parallel()
	a := newAbroad(t, 2<<20, lab.DaemonConfig{})
	wall := lab.NATConfig{RandomPorts: true, IPv6: true}
	a.holder("holder", a.internet.NAT("home-a", wall).Host("holder"))
	consumer := a.consumer("consumer", a.internet.NAT("home-b", wall).Host("consumer"), lab.DaemonConfig{})
	took, ways := a.fetch(consumer, a.large())
	t.Logf("by %s after %v", ways, took)
	if ways != "direct" {
		t.Errorf("came by %q, want a direct connection", ways)
	}
}

// Neighbours behind one router know each other's addresses of the local network,
// and need neither router nor relay.
func TestNeighboursBehindOneNAT(t *testing.T) {
	t.Parallel()
	a := newAbroad(t, 2<<20, lab.DaemonConfig{})
	home := a.internet.NAT("home", lab.NATConfig{})
	a.holder("holder", home.Host("holder"))
	consumer := a.consumer("consumer", home.Host("consumer"), lab.DaemonConfig{})
	took, ways := a.fetch(consumer, a.large())
	t.Logf("by %s after %v", ways, took)
	if ways != "lan" {
		t.Errorf("came by %q, want the local network", ways)
	}
	if relayed := a.relay.Status().P2P.Relaying.Bytes; relayed > 64<<10 {
		t.Errorf("%d bytes went through the relay", relayed)
	}
}

// A relay dies while a NAR comes that it has helped to begin, which goes on. While
// it is away others find the holder through another relay; and when it is back
// the holder has both again.
func TestRelayDies(t *testing.T) {
	t.Parallel()
	const size = 48 << 20
	a := newAbroad(t, size, lab.DaemonConfig{Port: 8461})
	second := a.infrastructure("second", lab.DaemonConfig{Port: 8461, Bootstrap: a.relay})
	host := a.at("holder", 1)
	host.Slow(size * 8 / 4) // Four seconds, all in all.
	holder := a.holder("holder", host, second)
	relays := func() int { return len(holder.Status().P2P.Reach.Relays) }
	a.WaitFor("the holder to have both relays", func() bool { return relays() == 2 })
	consumer := a.consumer("consumer", a.at("consumer", 1), lab.DaemonConfig{Bootstraps: []*lab.Daemon{second}})

	fetched := make(chan string, 1)
	go func() {
		_, err := consumer.Ctl("fetch", a.large().StorePath.String(), "-o", a.Dir("out")+"/large")
		fetched <- fmt.Sprint(err)
	}()
	a.WaitFor("the transfer to be under way", func() bool { return consumer.Status().NARBytes["peer"] > size/8 })
	a.relay.Kill()
	killed := time.Now()
	if err := <-fetched; err != "<nil>" {
		t.Error(err)
	}
	if ways := a.ways(consumer, a.large()); ways != "direct" {
		t.Errorf("came by %q, want a direct connection", ways)
	}
	a.WaitFor("the loss to be noticed", func() bool { return relays() == 1 })
	t.Logf("loss noticed after %v", time.Since(killed))

	newcomer := a.Daemon("late", lab.DaemonConfig{Host: a.at("late", 1), Anywhere: true, Keys: a.keys(), Bootstrap: second})
	a.WaitFor("one that comes later to join", func() bool { return newcomer.Status().P2P.RoutingPeers > 0 })
	if took, ways := a.fetch(newcomer, a.small()); ways != "direct" {
		t.Errorf("without the first relay came by %q after %v", ways, took)
	}

	a.relay.Start()
	back := time.Now()
	a.WaitFor("a reservation with the relay that is back", func() bool { return relays() == 2 })
	took := time.Since(back)
	t.Logf("reservation %v after the relay has come back", took)
	if late(took, 30*time.Second) {
		t.Errorf("the reservation took %v", took)
	}
}

// The holder's network changes, in the ways that happen at home. It is found again
// each time, by one that knew it and over a direct connection.
func TestNetworkOfTheHolderChanges(t *testing.T) {
	for name, change := range map[string]func(home *lab.NAT, holder *lab.Host){
		"mappings are forgotten": func(home *lab.NAT, _ *lab.Host) { home.Restart() },
		"router's address":       func(home *lab.NAT, _ *lab.Host) { home.Readdress() },
		"holder's address":       func(_ *lab.NAT, holder *lab.Host) { holder.Readdress() },
		"off the network for 20 s": func(_ *lab.NAT, holder *lab.Host) {
			holder.Unplug()
			time.Sleep(20 * time.Second)
			holder.Plug()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAbroad(t, 2<<20, lab.DaemonConfig{})
			home := a.internet.NAT("home", lab.NATConfig{})
			host := home.Host("holder")
			a.holder("holder", host)
			consumer := a.consumer("consumer", a.at("consumer", 1), lab.DaemonConfig{})
			if _, ways := a.fetch(consumer, a.small()); ways != "direct" {
				t.Errorf("at first came by %q", ways)
			}
			change(home, host)
			begin := time.Now()
			var ways string
			// It may fail until the holder is back.
			a.WaitLonger("the holder to be found again", 2*time.Minute, func() bool {
				time.Sleep(time.Second / 2) // Nor does a user try all the time.
				_, err := consumer.Ctl("fetch", a.large().StorePath.String(), "-o", a.Dir("out")+"/"+fmt.Sprint(time.Now().UnixNano()))
				if err == nil {
					ways = a.ways(consumer, a.large())
				}
				return err == nil
			})
			t.Logf("a NAR by %s after %v", ways, time.Since(begin))
			if ways != "direct" {
				t.Errorf("came by %q, want a direct connection", ways)
			}
		})
	}
}

// A port of the router leads to the holder: mapped at its request, or forwarded by
// hand. It notices, and needs no relay any more.
func TestPortsOfTheRouter(t *testing.T) {
	for name, kind := range map[string]lab.NATConfig{
		"mapped on request": {MapsPorts: true},
		"forwarded by hand": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAbroad(t, 2<<20, lab.DaemonConfig{})
			home := a.internet.NAT("home", kind)
			host := home.Host("holder")
			if !kind.MapsPorts {
				home.Forward("tcp", 8461, host)
				home.Forward("udp", 8461, host)
			}
			holder := a.Daemon("holder", lab.DaemonConfig{
				Host: host, Anywhere: true, Port: 8461, Cache: a.cache, Keys: a.keys(), Bootstrap: a.relay,
			})
			begin := time.Now()
			a.WaitLonger("the holder to know that it can be reached", 2*time.Minute, func() bool {
				return holder.Status().P2P.Reach.State == "reachable"
			})
			t.Logf("known after %v: %+v", time.Since(begin), holder.Status().P2P.Reach)
			holder.WaitAnnounced(3)
			consumer := a.consumer("consumer", a.at("consumer", 1), lab.DaemonConfig{})
			if took, ways := a.fetch(consumer, a.large()); ways != "direct" || late(took, 10*time.Second) {
				t.Errorf("came by %q after %v", ways, took)
			}
		})
	}
}
