package routing_test

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"

	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// records is how many provider records a node has sent.
func (n *simulated) records() int { return n.host.Traffic().Messages[addProvider] }

// A restart in the first cycle sends nothing again, but what came into the store
// while the node was down; and the cycle goes on where it was.
func TestRestartSendsNothingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 100)
		node := s.node()
		held := paths(200)
		a := node.start(t)
		// The store is read while the node is long in the network.
		time.Sleep(time.Minute)
		a.changes <- share.Change{Added: held[:100]}
		time.Sleep(time.Second)
		a.tell(held[100:199]...)
		a.finish(t, 398)
		a.stop()
		time.Sleep(time.Hour)

		before := node.records()
		a = node.start(t)
		a.tell(held[:199]...)
		time.Sleep(time.Hour)
		if got := node.records() - before; got != 0 {
			t.Errorf("%d records were sent again", got)
		}
		a.stop()
		a = node.start(t)
		a.tell(held...)
		time.Sleep(time.Hour)
		if got := node.records() - before; got != 2*20 {
			t.Errorf("%d records were sent for two new keys, want 40", got)
		}
		time.Sleep(cycle)
		// Twice where the provider has estimated the network to be larger than it
		// is: with a region it announces its neighbour, which has a turn of its own.
		if got := node.records() - before; got < 400*20 || got > 2*400*20 {
			t.Errorf("%d records were sent in the cycle after, want %d or up to twice as many", got, 400*20)
		}
	})
}

// Few keys in a large network: most regions have none, and the one that a key was
// announced in is not the one in which it is looked for after a restart. Only after
// a cycle it is due again.
func TestRestartWithFewPathsSendsNothingAgain(t *testing.T) {
	for _, count := range []int{1, 6} {
		synctest.Test(t, func(t *testing.T) {
			s := simulate(t, 200)
			node := s.node()
			held := paths(count)
			run := func(pause time.Duration) (sent int) {
				before := node.records()
				a := node.start(t)
				a.tell(held...)
				a.finish(t, 2*count)
				time.Sleep(time.Minute)
				a.stop()
				time.Sleep(pause)
				return node.records() - before
			}
			first := run(time.Minute)
			if got := run(time.Minute) + run(cycle+time.Hour); got != 0 {
				t.Errorf("of %d keys %d records were sent, %d again after two restarts", 2*count, first, got)
			}
			if got := run(0); got < 2*count*20 {
				t.Errorf("of %d keys %d records were sent again after a cycle", 2*count, got)
			}
		})
	}
}

// What was announced while the clock was ten years ahead is announced again in its turn
// all the same, and not only in ten years.
func TestRestartAfterTheClockWasAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 60)
		node := s.node()
		held := paths(6)
		run := func() (sent int) {
			before := node.records()
			a := node.start(t)
			a.tell(held...)
			a.finish(t, 12)
			time.Sleep(time.Minute)
			a.stop()
			return node.records() - before
		}
		first := run()
		if n := node.ahead(t, 10); n == 0 {
			t.Fatal("nothing was noted")
		}
		time.Sleep(cycle + time.Hour)
		if got := run(); got < 12*20 {
			t.Errorf("of 12 keys %d records were sent, and %d a cycle later", first, got)
		}
	})
}

// ahead dates what a node has noted to have announced some years later, and returns how
// many notes there are.
func (n *simulated) ahead(t *testing.T, years int) (count int) {
	t.Helper()
	noted := regexp.MustCompile(`^(.*/history/)([0-9a-f]{8})(.*)$`)
	for e, err := range ds.QueryIter(t.Context(), n.store, query.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		parts := noted.FindStringSubmatch(e.Key)
		if parts == nil {
			continue
		}
		at, err := strconv.ParseInt(parts[2], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		later := fmt.Sprintf("%s%08x%s", parts[1], time.Unix(at, 0).AddDate(years, 0, 0).Unix(), parts[3])
		if err := errors.Join(n.store.Delete(t.Context(), ds.RawKey(e.Key)), n.store.Put(t.Context(), ds.RawKey(later), e.Value)); err != nil {
			t.Fatal(err)
		}
		count++
	}
	return count
}

// A path that was collected is announced no more: not in this cycle, and not
// after a restart. One that was collected while the node was down is not either.
func TestCollectedPathsAreAnnouncedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 25)
		node := s.node()
		held := paths(40)
		a := node.start(t)
		a.tell(held...)
		a.finish(t, 80)
		a.changes <- share.Change{Removed: held[:10], Settled: true}
		a.finish(t, 60)
		a.stop()
		a = node.start(t)
		a.tell(held[20:]...)
		a.finish(t, 40)
		time.Sleep(49 * time.Hour) // The first records have expired.
		for i, k := range held {
			want := 20
			if i < 20 {
				want = 0
			}
			if got := s.holders(t, routing.ContentKey(k.NARHash).Hash()); got != want {
				t.Errorf("path %d is at %d servers, want %d", i, got, want)
			}
		}
	})
}

// A region whose turn comes while the node has no address, as between two relays,
// is announced all the same. The provider alone would drop it for a whole cycle.
func TestAddressesVanishForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 25)
		node := s.node()
		held := paths(40)
		a := node.start(t)
		a.tell(held...)
		a.finish(t, 80)
		addrs := node.host.Addrs()
		node.host.SetAddrs()
		time.Sleep(cycle)
		node.host.SetAddrs(addrs...)
		before := node.records()
		if before < 2*80*20 {
			t.Errorf("%d records were sent in two cycles, want %d", before, 2*80*20)
		}
	})
}

// Announcing waits for an address, however long it takes.
func TestWaitsForAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 25)
		node := s.node()
		node.host.SetAddrs()
		held := paths(40)
		a := node.start(t)
		a.tell(held...)
		time.Sleep(3 * time.Hour)
		if p, err := a.Progress(t.Context()); err != nil || p.Keys != 80 || p.Waiting != 80 || node.records() != 0 {
			t.Errorf("without an address: %+v, %v, %d records", p, err, node.records())
		}
		node.host.SetAddrs(ma.StringCast("/ip4/11.0.0.1/tcp/8461"))
		a.finish(t, 80)
		if got := node.records(); got != 80*20 {
			t.Errorf("%d records were sent, want %d", got, 80*20)
		}
	})
}

// A record that a server does not take goes to the next nearest one. And after two
// refusals in a row a server is left alone until a lookup brings it again.
func TestServersThatTakeNoRecords(t *testing.T) {
	const keys = 1000
	for _, test := range []struct{ servers, least int }{
		// One region: all servers are known.
		{servers: 40, least: 20},
		// Regions of 20 servers and more. They are explored one by one, so those of
		// the next may not be known yet; but of 20 that lie together 15 take records.
		{servers: 200, least: 15},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := simulate(t, test.servers)
			for i, server := range s.Servers() {
				server.Host.SetFull(i%4 == 0)
			}
			node := s.node()
			held := paths(keys / 2)
			a := node.start(t)
			a.tell(held...)
			a.finish(t, keys)
			for i, k := range held {
				for _, key := range []mh.Multihash{routing.ContentKey(k.NARHash).Hash(), routing.MetadataKey(k.HashPart).Hash()} {
					if got := s.holders(t, key); got < test.least {
						t.Errorf("of %d servers, %d of the 20 nearest to a key of path %d have its record, want %d", test.servers, got, i, test.least)
					}
				}
			}
			// Of the 27 servers nearest to a key seven refuse. Were that forgotten, there
			// would be some 7,000 refusals.
			if got := node.host.Traffic().Failed; got > keys {
				t.Errorf("of %d servers, some refused %d times", test.servers, got)
			}
		})
	}
}
