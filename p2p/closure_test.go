package p2p_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p"
)

// closurePaths is the size of the closures here: that of a small system's part.
const closurePaths = 200

// newClosure returns a closure and a shelf that holds it.
func newClosure(tb testing.TB) (*closure.Closure, *shelf) {
	tb.Helper()
	key, err := narinfo.GenerateSecretKey("test-1")
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	c, err := closure.Generate(tb.Context(), dir, closure.Config{Paths: closurePaths, Seed: 1, Key: key, MaxFileSize: 2 << 10})
	if err != nil {
		tb.Fatal(err)
	}
	s := newShelf(tb)
	for _, info := range c.Records {
		if s.nars[info.NARHash], err = os.ReadFile(filepath.Join(dir, info.URL)); err != nil {
			tb.Fatal(err)
		}
		s.infos[info.StorePath.HashPart()] = info
	}
	return c, s
}

// walk asks peers for the records of a closure as Nix does while every upstream
// is down, and expects each NAR.
func (n *node) walk(tb testing.TB, c *closure.Closure) {
	tb.Helper()
	records, err := closure.Walk(c.Root().StorePath.HashPart(), func(part nix.HashPart) (*narinfo.Info, error) {
		ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
		defer cancel()
		for info := range n.Narinfos(ctx, part, true) {
			n.Expect(info.NARHash, true)
			return info, nil
		}
		return nil, fmt.Errorf("no record of %s", part)
	})
	if err != nil || len(records) != len(c.Records) {
		tb.Fatalf("got %d records of %d: %v", len(records), len(c.Records), err)
	}
}

// counted sums a counter up over all its series.
func counted(tb testing.TB, registry *prometheus.Registry, name string) (sum float64) {
	tb.Helper()
	families, err := registry.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// startPair starts a provider of a closure and a consumer that is connected with
// it, as on a LAN.
func startPair(tb testing.TB) (c *closure.Closure, provider, consumer *node, registry *prometheus.Registry) {
	tb.Helper()
	c, held := newClosure(tb)
	registry = prometheus.NewRegistry()
	provider = start(tb, p2p.Config{Profile: p2p.Private, Network: "team"}, held)
	consumer = start(tb, p2p.Config{
		Profile: p2p.Private, Network: "team", Peers: infos(provider), Registerer: registry,
	}, newShelf(tb))
	await(tb, "a connection", func() bool { return consumer.connected(provider) })
	return c, provider, consumer, registry
}

// The requests that there are at least follow from the depth of the closure; one
// for each path and kind would be 400.
func TestClosureInAnOutageCostsFewRequests(t *testing.T) {
	c, provider, consumer, registry := startPair(t)
	consumer.walk(t, c)
	await(t, "all NARs to be known", func() bool {
		for _, info := range c.Records {
			if !consumer.Known(info.NARHash) {
				return false
			}
		}
		return true
	})
	asked := counted(t, registry, "nar_p2p_locate_requests_total")
	answered := provider.Status().Served.Queries
	walks := counted(t, registry, "nar_p2p_dht_walks_total")
	t.Logf("%d paths: %v requests, of which %d were answered, and %v walks", closurePaths, asked, answered, walks)
	if asked == 0 || asked > closurePaths/2 || answered > int64(asked) || walks != 0 {
		t.Errorf("%d paths took %v requests, of which %d were answered, and %v walks; want at most %d and none",
			closurePaths, asked, answered, walks, closurePaths/2)
	}
}

// BenchmarkClosureInAnOutage asks one connected peer for the records of a
// closure.
func BenchmarkClosureInAnOutage(b *testing.B) {
	c, _, consumer, registry := startPair(b)
	for b.Loop() {
		consumer.walk(b, c)
	}
	b.ReportMetric(counted(b, registry, "nar_p2p_locate_requests_total")/float64(b.N), "requests/op")
}
