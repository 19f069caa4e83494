package e2e_test

import (
	"testing"

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
