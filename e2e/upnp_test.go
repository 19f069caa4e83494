package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// A router that speaks UPnP alone, and through which no hole could be punched, leads
// its port to the holder, which is reached from behind another such router and by no
// relay. The port is asked for again when the router has forgotten it, and given back
// at the end. Nothing of this needs the holder's own firewall to be open for more than
// its port.
func TestPortsOfTheRouterByUPnP(t *testing.T) {
	t.Parallel()
	a := newAbroad(t, 2<<20, lab.DaemonConfig{})
	home := a.internet.NAT("home", lab.NATConfig{UPnP: true, RandomPorts: true})
	host := home.Host("holder")
	host.Firewall(8461)
	begin := time.Now()
	holder := a.Daemon("holder", lab.DaemonConfig{
		Host: host, Anywhere: true, Port: 8461, Cache: a.cache, Keys: a.keys(), Bootstrap: a.relay,
	})
	to := "8461 to " + host.Addr + ":8461"
	mapped := func() bool { return slices.Equal(home.Mapped(), []string{to, to}) } // TCP and UDP
	a.WaitFor("both ports to be mapped", mapped)
	a.WaitLonger("the holder to know that it can be reached", 3*time.Minute, func() bool {
		return holder.Status().P2P.Reach.State == "reachable"
	})
	t.Logf("known after %v: %+v", time.Since(begin), holder.Status().P2P.Reach)
	holder.WaitAnnounced(3)

	random := a.internet.NAT("away", lab.NATConfig{RandomPorts: true})
	consumer := a.consumer("consumer", random.Host("consumer"), lab.DaemonConfig{})
	if took, ways := a.fetch(consumer, a.small()); ways != "direct" {
		t.Errorf("came by %q after %v", ways, took)
	}

	if said := told(t, holder); !strings.Contains(said, "whose port the router forwards to it.") {
		t.Errorf("p2pctl status: %s", said)
	}

	later := a.consumer("later", random.Host("later"), lab.DaemonConfig{})
	home.Reboot()
	begin = time.Now()
	a.WaitFor("the ports to be mapped again", mapped)
	t.Logf("mapped again after %v", time.Since(begin))
	if took, ways := a.fetch(later, a.large()); ways != "direct" {
		t.Errorf("after the router was restarted came by %q after %v", ways, took)
	}
	if relayed := a.relay.Status().P2P.Relaying.Bytes; relayed > 0 {
		t.Errorf("%d bytes went through the relay", relayed)
	}

	if err := holder.Stop(); err != nil {
		t.Error(err)
	}
	if left := home.Mapped(); len(left) > 0 {
		t.Errorf("after the end the router has %q", left)
	}
}
