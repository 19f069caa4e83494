package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// BenchmarkPunching has fifty nodes behind each kind of NAT, ten at a time and each
// with an identity and ports of its own, fetch a small NAR from a holder behind
// another. It counts those to whom it came over a direct connection, and takes the
// median of their times from the request to the last byte.
func BenchmarkPunching(b *testing.B) {
	usual, random := lab.NATConfig{}, lab.NATConfig{RandomPorts: true}
	tcp, ipv6 := lab.NATConfig{BlockUDP: true}, lab.NATConfig{RandomPorts: true, IPv6: true}
	for _, bb := range []struct {
		name             string
		holder, consumer lab.NATConfig
		nats             int // before the holder
	}{
		{"both usual", usual, usual, 1},
		{"holder behind two", usual, usual, 2},
		{"both without UDP", tcp, tcp, 1},
		{"holder without UDP", tcp, usual, 1},
		{"holder with random ports", random, usual, 1},
		{"consumer with random ports", usual, random, 1},
		{"both with random ports", random, random, 1},
		{"both with firewalls of IPv6", ipv6, ipv6, 1},
	} {
		b.Run(bb.name, func(b *testing.B) {
			const nodes, atOnce = 50, 10
			for b.Loop() {
				a := newAbroad(b, 64<<10, lab.DaemonConfig{})
				home := a.internet
				for range bb.nats {
					home = home.NAT("home", bb.holder).Segment
				}
				a.holder("holder", home.Host("holder"))
				var times []time.Duration
				for _, o := range a.crowd(a.internet.NAT("office", bb.consumer).Host("office"), nodes, atOnce) {
					if o.Way == "direct" {
						times = append(times, o.Took)
					} else {
						b.Logf("not punched after %v, by %q: %s", o.Took, o.Way, o.Err)
					}
				}
				b.ReportMetric(float64(len(times)), "of-50-punched")
				if len(times) > 0 {
					slices.Sort(times)
					b.ReportMetric(float64(times[len(times)/2].Milliseconds()), "ms-median")
				}
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}
