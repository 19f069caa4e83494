package faults

import (
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// abroad is a provider and a consumer with a line each, and nothing else: no
// upstream.
type abroad struct {
	net            *lab.Net
	home           *lab.Host
	provider, node *lab.Daemon
	store          *lab.Nix
}

func (c *trial) abroad(line lab.Line) *abroad {
	c.t.Helper()
	a := &abroad{net: c.Net()}
	far := a.net.Host("11.0.1.1", line)
	a.home = a.net.Host("11.0.2.1", line)
	a.provider = c.Daemon("provider", lab.DaemonConfig{Host: far, Cache: c.ground.cache, Keys: c.ground.keys})
	a.provider.WaitShared(1 + smallPaths)
	a.node, a.store = c.consumer(lab.DaemonConfig{Host: a.home, Bootstrap: a.provider, Upstreams: []string{}})
	c.WaitFor("the consumer to speak with the provider", func() bool { return a.node.Speaks(a.provider) })
	return a
}

// outages are the faults of the way between two peers.
func outages() []fault {
	bad := func(name string, line lab.Line) fault {
		return fault{area: ofTheWay, name: name, meet: func(t *testing.T, c *trial) string {
			t.Helper()
			a := c.abroad(line)
			c.realise(a.store, c.ground.small.Root().StorePath)
			return givers(a.node)
		}}
	}
	return []fault{
		bad("loses 5 % of all packets", lab.Line{Delay: 5 * time.Millisecond, Loss: 0.025}),
		bad("reorders 10 % of all packets", lab.Line{Delay: 5 * time.Millisecond, Reorder: 0.05}),
		// Half of it on each of the two lines.
		bad("delays every packet by 500 ms", lab.Line{Delay: 250 * time.Millisecond}),
		{area: ofTheWay, name: "is cut for 5 s in the middle of a NAR, and heals", meet: cutAndHealed},
	}
}

// cutFor is longer than any packet is sent again in, and shorter than libp2p takes
// to give a connection up.
const cutFor = 5 * time.Second

func cutAndHealed(t *testing.T, c *trial) string {
	t.Helper()
	a := c.abroad(lab.Line{Delay: 5 * time.Millisecond, Rate: 40_000_000})
	record := c.ground.single.Root()
	healed := make(chan struct{})
	go func() {
		defer close(healed)
		c.WaitFor("a third of the NAR", func() bool { return a.provider.Status().P2P.Served.Bytes > record.NARSize/3 })
		a.net.Part(a.home, true)
		time.Sleep(cutFor) // That is the fault.
		a.net.Part(a.home, false)
	}()
	c.realise(a.store, record.StorePath)
	<-healed
	if c.took < cutFor {
		t.Errorf("it took %v: the trial shows nothing", c.took)
	}
	// And it works on.
	c.realise(a.store, c.ground.small.Root().StorePath)
	return givers(a.node)
}
