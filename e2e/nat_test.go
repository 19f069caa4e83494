package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// abroad is a private network whose members are behind routers of their own, and
// one node with a public address that they know.
type abroad struct {
	*lab.Lab
	tb       testing.TB
	key      narinfo.SecretKey
	internet *lab.Segment
	// relay is the node that they know, and cache what holders share.
	relay   *lab.Daemon
	cache   string
	closure *closure.Closure
}

// newAbroad makes a network whose holders share a closure of three paths, of which
// one has a file of largeSize bytes more.
func newAbroad(tb testing.TB, largeSize int64, relay lab.DaemonConfig) *abroad {
	tb.Helper()
	a := &abroad{Lab: lab.New(tb), tb: tb}
	var err error
	if a.key, err = narinfo.GenerateSecretKey("abroad-1"); err != nil {
		tb.Fatal(err)
	}
	a.cache = a.Dir("cache")
	if a.closure, err = closure.Generate(tb.Context(), a.cache, closure.Config{Paths: 3, Seed: 1, Key: a.key, LargeSize: largeSize}); err != nil {
		tb.Fatal(err)
	}
	a.internet = a.Internet()
	a.relay = a.infrastructure("relay", relay)
	return a
}

func (a *abroad) keys() []string { return []string{a.key.Public().String()} }

// infrastructure starts a node with a public address that relays.
func (a *abroad) infrastructure(name string, cfg lab.DaemonConfig) *lab.Daemon {
	a.tb.Helper()
	cfg.Host, cfg.Infrastructure = a.internet.Host(name), true
	return a.Daemon(name, cfg)
}

// holder starts a daemon that shares the cache, and waits until it can be found
// and reached.
func (a *abroad) holder(name string, host *lab.Host, relays ...*lab.Daemon) *lab.Daemon {
	a.tb.Helper()
	return a.holderBy("", name, host, relays...)
}

// holderBy is holder over one transport, "tcp" or "udp", to the relays.
func (a *abroad) holderBy(transport, name string, host *lab.Host, relays ...*lab.Daemon) *lab.Daemon {
	a.tb.Helper()
	d := a.Daemon(name, lab.DaemonConfig{
		Host: host, Anywhere: true, Cache: a.cache, Keys: a.keys(), Bootstrap: a.relay, Bootstraps: relays, BootstrapBy: transport,
	})
	a.WaitFor(name+" to be reached", func() bool {
		state := d.Status().P2P.Reach.State
		return state == "relayed" || state == "reachable"
	})
	d.WaitAnnounced(3)
	return d
}

// consumer starts a daemon that has nothing, and waits until it is in the network.
func (a *abroad) consumer(name string, host *lab.Host, cfg lab.DaemonConfig) *lab.Daemon {
	a.tb.Helper()
	cfg.Host, cfg.Anywhere, cfg.Keys, cfg.Bootstrap = host, true, a.keys(), a.relay
	d := a.Daemon(name, cfg)
	a.WaitFor(name+" to join", func() bool { return d.Status().P2P.RoutingPeers > 0 })
	return d
}

// root is the path that needs all others, large the one that is large.
func (a *abroad) root() nix.StorePath { return a.closure.Root().StorePath }

func (a *abroad) large() *narinfo.Info {
	largest := a.closure.Records[0]
	for _, r := range a.closure.Records {
		if r.NARSize > largest.NARSize {
			largest = r
		}
	}
	return largest
}

func (a *abroad) small() *narinfo.Info {
	for _, r := range a.closure.Records {
		if r != a.large() && r != a.closure.Root() {
			return r
		}
	}
	return a.closure.Root()
}

// fetch fetches a NAR and returns how long that took, and which way the bytes
// came: "upstream", or "lan", "direct" or "relay" from peers.
func (a *abroad) fetch(d *lab.Daemon, record *narinfo.Info) (took time.Duration, ways string) {
	a.tb.Helper()
	begin := time.Now()
	if _, err := d.Ctl("fetch", record.StorePath.String(), "-o", a.Dir("out")+"/"+fmt.Sprint(begin.UnixNano())); err != nil {
		a.tb.Fatal(err)
	}
	return time.Since(begin), a.ways(d, record)
}

// ways returns which ways the bytes of a NAR came the last time, as p2pctl explain
// tells it.
func (a *abroad) ways(d *lab.Daemon, record *narinfo.Info) string {
	a.tb.Helper()
	out, err := d.Ctl("--json", "explain", record.StorePath.String())
	if err != nil {
		a.tb.Fatal(err)
	}
	var told explain.Path
	if err := json.Unmarshal([]byte(out), &told); err != nil {
		a.tb.Fatal(err)
	}
	if told.Fetch == nil {
		a.tb.Fatalf("explain tells of no fetch of %s:\n%s", record.StorePath, out)
	}
	var ways []string
	for _, source := range told.Fetch.Sources {
		switch {
		case source.Bytes == 0:
		case source.Kind == explain.FromPeers:
			for _, part := range source.Peers {
				ways = append(ways, part.Via)
			}
		default:
			ways = append(ways, string(source.Kind))
		}
	}
	return strings.Join(ways, ",")
}

// late reports whether something took longer than it may: longer than is promised
// where TEST_NAT_TIMES says that nothing else runs, as make nat does; and longer than
// any test waits where other tests have the processor too.
func late(took, promised time.Duration) bool {
	if os.Getenv("TEST_NAT_TIMES") == "" {
		promised = lab.Patience
	}
	return took > promised
}

// Both behind routers of the usual kind: a closure comes over a direct connection,
// and the relay carries hardly more than it takes to make one.
func TestBothBehindNATs(t *testing.T) {
	const size = 100 << 20
	a := newAbroad(t, size, lab.DaemonConfig{})
	begin := time.Now()
	holder := a.holder("holder", a.internet.NAT("home-a", lab.NATConfig{}).Host("holder"))
	t.Logf("the holder can be reached after %v", time.Since(begin))
	host := a.internet.NAT("home-b", lab.NATConfig{}).Host("consumer")
	consumer := a.consumer("consumer", host, lab.DaemonConfig{})
	a.WaitFor("the consumer to have a relay", func() bool { return consumer.Status().P2P.Reach.State == "relayed" })
	before := a.relay.Status().P2P.Relaying.Bytes

	took, ways := a.fetch(consumer, a.small())
	t.Logf("a NAR by %s after %v", ways, took)
	if late(took, 3*time.Second) {
		t.Errorf("the first NAR took %v", took)
	}
	store := a.Nix("consumer", lab.NixConfig{Host: host, Substituters: []string{consumer.URL()}, TrustedKeys: a.keys()})
	store.Init()
	begin = time.Now()
	if err := store.Realise(a.root()); err != nil {
		t.Fatal(err)
	}
	t.Logf("the closure after another %v", time.Since(begin))
	store.Verify(a.root())
	for _, r := range []*narinfo.Info{a.large(), a.small()} {
		if ways := a.ways(consumer, r); ways != "direct" {
			t.Errorf("%s came by %q, want a direct connection", r.StorePath, ways)
		}
	}
	if served := holder.Status().P2P.Served.Bytes; served < size {
		t.Errorf("the holder has served %d bytes", served)
	}
	relayed := a.relay.Status().P2P.Relaying.Bytes - before
	t.Logf("%d bytes went through the relay", relayed)
	if relayed == 0 || relayed > 128<<10 {
		t.Errorf("%d bytes went through the relay, want some and at most 128 KiB", relayed)
	}
}

// One side, or both, has a router through which no hole can be punched. The bytes
// come from the upstream, and where there is none over a relay that is meant for
// data; and if there is no such relay either, Nix is told so. In no case for long,
// and the second time at once.
func TestWhereNoHoleCanBePunched(t *testing.T) {
	random := lab.NATConfig{RandomPorts: true}
	for name, tt := range map[string]struct {
		holder, consumer lab.NATConfig
		upstream, relay  bool
		want             string
	}{
		"random ports on both sides, upstream":        {random, random, true, false, "upstream"},
		"random ports at the holder, relay for data":  {random, lab.NATConfig{}, false, true, "relay"},
		"random ports at the consumer, nothing else":  {lab.NATConfig{}, random, false, false, ""},
		"no UDP and random ports, relay for data":     {lab.NATConfig{RandomPorts: true, BlockUDP: true}, lab.NATConfig{RandomPorts: true, BlockUDP: true}, false, true, "relay"},
		"no UDP and random ports, relay and upstream": {lab.NATConfig{RandomPorts: true, BlockUDP: true}, random, true, true, "upstream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAbroad(t, 2<<20, lab.DaemonConfig{RelayData: tt.relay})
			a.holder("holder", a.internet.NAT("home-a", tt.holder).Host("holder"))
			host := a.internet.NAT("home-b", tt.consumer).Host("consumer")
			consumer := a.consumer("consumer", host, a.behind(host, tt.upstream))
			for i, record := range a.closure.Records[:2] {
				begin := time.Now()
				_, err := consumer.Ctl("fetch", record.StorePath.String(), "-o", a.Dir("out")+"/"+fmt.Sprint(i))
				took := time.Since(begin)
				if tt.want == "" {
					if err == nil {
						t.Errorf("fetched by %s", a.ways(consumer, record))
					}
				} else if err != nil {
					t.Fatal(err)
				} else if ways := a.ways(consumer, record); ways != tt.want {
					t.Errorf("came by %q, want %q", ways, tt.want)
				}
				t.Logf("request %d took %v", i+1, took)
				switch {
				case i == 0 && late(took, 15*time.Second):
					t.Errorf("took %v", took)
				case i == 1 && late(took, 5*time.Second):
					t.Errorf("took %v, though there was no way before", took)
				}
			}
		})
	}
}

// behind returns the settings of a consumer on a host, with a cache beside it as
// its upstream or without.
func (a *abroad) behind(host *lab.Host, upstream bool) lab.DaemonConfig {
	a.tb.Helper()
	if !upstream {
		return lab.DaemonConfig{}
	}
	cache := a.Daemon("upstream", lab.DaemonConfig{Host: host, Profile: "off", Cache: a.cache, Keys: a.keys()})
	return lab.DaemonConfig{Upstreams: []string{cache.URL()}}
}

// A side knows from outside only the port of the transport over which it is connected
// with the relay. Where that is another one on each side, a hole is punched all the
// same.
func TestPunchingWhereEachSideKnowsAnotherPort(t *testing.T) {
	t.Parallel()
	a := newAbroad(t, 64<<10, lab.DaemonConfig{})
	a.holderBy("udp", "holder", a.at("holder", 1))
	consumer := a.consumer("consumer", a.at("consumer", 1), lab.DaemonConfig{BootstrapBy: "tcp"})
	if took, ways := a.fetch(consumer, a.large()); ways != "direct" {
		t.Errorf("came by %q after %v", ways, took)
	}
}

// Through routers that let TCP through alone holes are punched for that, where both
// let them.
func TestPunchingWithTCP(t *testing.T) {
	t.Parallel()
	a := newAbroad(t, 2<<20, lab.DaemonConfig{RelayData: true})
	noUDP := lab.NATConfig{BlockUDP: true}
	a.holder("holder", a.internet.NAT("home-a", noUDP).Host("holder"))
	consumer := a.consumer("consumer", a.internet.NAT("home-b", noUDP).Host("consumer"), lab.DaemonConfig{})
	took, ways := a.fetch(consumer, a.large())
	t.Logf("by %s after %v", ways, took)
	if ways != "direct" && ways != "relay" {
		t.Errorf("came by %q", ways)
	}
}
