package faults

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// wired starts a consumer that knows a daemon by a wire to it alone. The upstream
// keeps its NARs until the wire turns.
func (c *trial) wired(provider *lab.Daemon) (*lab.Wire, *lab.Daemon, *lab.Nix) {
	c.t.Helper()
	w := c.Wire(tcpOf(c.t, provider))
	c.upstream.Hold(lab.NAR)
	d, store := c.consumer(lab.DaemonConfig{Known: []string{knownAt(c.t, w, provider)}})
	c.WaitFor("the consumer to speak with the provider", func() bool { return d.Speaks(provider) })
	return w, d, store
}

// knownAt is a daemon's address at the other end of a wire.
func knownAt(t *testing.T, w *lab.Wire, d *lab.Daemon) string {
	t.Helper()
	host, port, err := net.SplitHostPort(w.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/ip4/%s/tcp/%s/p2p/%s", host, port, d.PeerID())
}

// tcpOf is where a daemon listens by TCP.
func tcpOf(t *testing.T, d *lab.Daemon) string {
	t.Helper()
	for _, addr := range d.Addrs() {
		if parts := strings.Split(addr, "/"); parts[1] == "ip4" && parts[3] == "tcp" {
			return net.JoinHostPort(parts[2], parts[4])
		}
	}
	t.Fatalf("no TCP among %v", d.Addrs())
	return ""
}

// vanishings are the faults of peers that go, or nearly.
func vanishings() []fault {
	at := func(conduct lab.Conduct, percent int64, full bool) fault {
		return fault{
			area: ofPeers, name: fmt.Sprintf("%s at %d %%", conduct, percent), full: full,
			meet: func(t *testing.T, c *trial) string {
				t.Helper()
				w, d, store := c.wired(c.ground.provider)
				w.After(c.ground.single.Root().NARSize*percent/100, conduct, c.upstream.Release)
				c.realise(store, c.ground.single.Root().StorePath)
				tripped(t, w)
				return givers(d)
			},
		}
	}
	killed := func(percent int64) fault {
		return fault{
			area: ofPeers, name: fmt.Sprintf("is killed (SIGKILL) at %d %%", percent),
			meet: func(t *testing.T, c *trial) string {
				t.Helper()
				provider := c.Daemon("provider", lab.DaemonConfig{Cache: c.ground.cache, Keys: c.ground.keys})
				provider.WaitShared(1 + smallPaths)
				w, d, store := c.wired(provider)
				w.After(c.ground.single.Root().NARSize*percent/100, lab.Carry, func() {
					provider.Kill()
					c.upstream.Release()
				})
				c.realise(store, c.ground.single.Root().StorePath)
				tripped(t, w)
				return givers(d)
			},
		}
	}
	return []fault{
		at(lab.Stall, 0, false), at(lab.Stall, 1, true), at(lab.Stall, 50, true), at(lab.Stall, 99, false),
		at(lab.Reset, 0, true), at(lab.Reset, 1, true), at(lab.Reset, 50, false), at(lab.Reset, 99, true),
		at(lab.Trickle, 1, true), at(lab.Trickle, 50, false), at(lab.Trickle, 99, true),
		killed(1), killed(50), killed(99),
	}
}

// tripped checks that the fault was met at all.
func tripped(t *testing.T, w *lab.Wire) {
	t.Helper()
	select {
	case <-w.Tripped():
	default:
		t.Error("the wire has carried everything: the trial shows nothing")
	}
}
