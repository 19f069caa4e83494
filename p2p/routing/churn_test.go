package routing_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/routing/sim"
)

// What was announced is found although half of the servers have gone since, and
// quickly. `make sim` measures the same with 10,000 servers.
func TestLookupsOutliveServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const servers, lookups = 300, 200
		s := simulate(t, servers)
		held := paths(lookups)
		a := s.node().start(t)
		a.tell(held...)
		a.finish(t, 2*lookups)
		reader := s.node().start(t)
		time.Sleep(time.Minute) // Until it knows its part of the network.

		order := s.random.Perm(servers)
		for _, test := range []struct{ gone, found int }{{0, 200}, {servers * 20 / 100, 199}, {servers / 2, 195}} {
			for _, at := range order[:test.gone] {
				s.Servers()[at].Host.SetDown(true)
			}
			found, hops := 0, 0
			for _, k := range held {
				var trace sim.Trace
				ctx, cancel := context.WithTimeout(trace.Watch(t.Context()), time.Minute)
				for range reader.dht.FindProviders(ctx, routing.ContentKey(k.NARHash)) {
					found++
					break
				}
				cancel()
				hops = max(hops, trace.Hops())
			}
			if found < test.found || hops > 4 {
				t.Errorf("with %d of %d servers gone %d of %d were found, in up to %d hops", test.gone, servers, found, lookups, hops)
			}
			t.Logf("gone %d: found %d, hops %d", test.gone, found, hops)
		}
	})
}
