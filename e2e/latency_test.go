package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// BenchmarkFirstByteFromAfar measures how long it takes from the request for a
// narinfo to the first byte of its NAR, in a public network in which every message
// takes 50 ms and the only holder must be found in the DHT. Between the two Nix is
// busy with other paths, which is when a lookup ahead goes on. Without it the
// lookup would begin with the NAR, which is measured by asking for that alone.
func BenchmarkFirstByteFromAfar(b *testing.B) {
	for b.Loop() {
		f := newFarAway(b)
		alone := f.consumer(100).median(func(c *farConsumer) time.Duration { return c.get(f.url) })
		b.ReportMetric(float64(alone.Milliseconds()), "ms-NAR-alone")
		for i, pause := range []time.Duration{0, 200 * time.Millisecond, 500 * time.Millisecond, time.Second} {
			pair := f.consumer(101 + i).median(func(c *farConsumer) time.Duration {
				first := c.get(f.record.StorePath.HashPart().String() + ".narinfo")
				time.Sleep(pause)
				return first + c.get(f.url)
			})
			b.ReportMetric(float64(pair.Milliseconds()), fmt.Sprintf("ms-both-but-for-%v-between", pause))
		}
	}
}

// farAway is a network whose nodes are far from each other.
type farAway struct {
	*lab.Lab
	tb                  testing.TB
	net                 *lab.Net
	bootstrap, provider *lab.Daemon
	// shown is a cache of records that has no NARs.
	shown string
	// record is that of the NAR, and url names it at consumers; other is another
	// path of the provider's.
	record *narinfo.Info
	url    string
	other  string
}

func newFarAway(b *testing.B) *farAway {
	b.Helper()
	f := &farAway{Lab: lab.New(b), tb: b}
	f.net = f.Net()
	held := f.Dir("held")
	f.shown = f.Dir("shown")
	records := f.GenuineCache(held)
	f.GenuineCache(f.shown)
	if err := os.RemoveAll(filepath.Join(f.shown, "nar")); err != nil {
		b.Fatal(err)
	}
	// A small one, so that it is the way that takes time and not the bytes.
	f.record = slices.MinFunc(records, func(a, b *narinfo.Info) int { return int(a.NARSize - b.NARSize) })
	f.url = fmt.Sprintf("nar/%s-%s.nar", f.record.StorePath.HashPart(), strings.TrimPrefix(f.record.NARHash.String(), "sha256:"))
	f.other = records[1].StorePath.HashPart().String()
	for i := range 6 {
		server := f.Daemon(fmt.Sprintf("server-%d", i), lab.DaemonConfig{
			Host: f.host(i), Network: "public", Infrastructure: true, Bootstrap: f.bootstrap,
		})
		if i == 0 {
			f.bootstrap = server
		}
	}
	f.provider = f.Daemon("provider", lab.DaemonConfig{Host: f.host(50), Network: "public", Cache: held, Bootstrap: f.bootstrap})
	f.WaitFor("the provider to announce", func() bool {
		a := f.provider.Status().P2P.Announcing
		return a != nil && a.Keys > 0 && a.Waiting == 0 && a.Regions == 0
	})
	return f
}

func (f *farAway) host(i int) *lab.Host {
	return f.net.Host(fmt.Sprintf("11.0.%d.1", i), lab.Line{Delay: 25 * time.Millisecond})
}

// farConsumer is a node that has its records from a cache at its side.
type farConsumer struct {
	*farAway
	*lab.Daemon
	home *lab.Host
}

func (f *farAway) consumer(i int) *farConsumer {
	c := &farConsumer{farAway: f, home: f.host(i)}
	cache := f.Daemon(fmt.Sprintf("cache-%d", i), lab.DaemonConfig{Host: c.home, Network: "public", Profile: "off", Cache: f.shown})
	c.Daemon = f.Daemon(fmt.Sprintf("consumer-%d", i), lab.DaemonConfig{
		Host: c.home, Network: "public", Bootstrap: f.bootstrap, Upstreams: []string{cache.URL()},
	})
	return c
}

// median is that of three measurements of a node that knows the DHT and nothing
// else. More restarts would meet the limit of connections from one address.
func (c *farConsumer) median(measure func(*farConsumer) time.Duration) time.Duration {
	times := make([]time.Duration, 3)
	connected := 0
	for i := range times {
		if err := c.Stop(); err != nil {
			c.tb.Fatal(err)
		}
		c.WipeState()
		c.Start()
		c.WaitFor("another path to be found", func() bool {
			found, err := c.Ctl("find", c.other)
			return err == nil && strings.Contains(found, c.provider.PeerID())
		})
		if c.ConnectedTo(c.provider) {
			connected++
		}
		times[i] = measure(c)
	}
	c.tb.Logf("%v, connected with the provider before in %d", times, connected)
	slices.Sort(times)
	return times[1]
}

// get asks for a file and returns when its first byte came.
func (c *farConsumer) get(name string) time.Duration {
	c.tb.Helper()
	var out, said bytes.Buffer
	cmd := c.home.Command(c.Context(), "curl", "-sSf", "-o", "/dev/null", "-w", "%{time_starttransfer}", c.URL()+"/"+name)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		text, _ := c.Ctl("explain", c.record.StorePath.HashPart().String())
		c.tb.Fatalf("get %s: %v: %s\n%s", name, err, said.String(), text)
	}
	seconds, err := strconv.ParseFloat(out.String(), 64)
	if err != nil {
		c.tb.Fatal(err)
	}
	return time.Duration(seconds * float64(time.Second))
}
