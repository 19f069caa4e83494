package plan_test

import (
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/substituter/plan"
)

const ms = time.Millisecond

func TestDecide(t *testing.T) {
	const mega = 1e6
	near := plan.Expectation{FirstByte: 20 * ms, Rate: 50 * mega}
	far := plan.Expectation{FirstByte: 300 * ms, Rate: 5 * mega}
	works := func(e plan.Expectation) plan.Upstream { return plan.Upstream{Works: true, Expectation: e} }
	for _, tt := range []struct {
		name     string
		bytes    int64
		peers    *plan.Peers
		upstream plan.Upstream
		want     plan.Decision
	}{
		{
			"no peers", 100 * mega, nil, works(near),
			plan.Decision{Reason: plan.NoPeers, PeersAfter: 1000 * ms, UpstreamAfter: 150 * ms},
		},
		{
			"holders of whom nothing is known", 100 * mega, &plan.Peers{Providers: 1}, works(near),
			plan.Decision{Reason: plan.HolderKnown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 500 * ms},
		},
		{
			"the upstream joins after the peers' usual first byte", 100 * mega,
			&plan.Peers{Providers: 2, Expectation: plan.Expectation{FirstByte: 400 * ms, Rate: 50 * mega}}, works(far),
			plan.Decision{Reason: plan.HolderKnown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 400 * ms},
		},
		{
			"but not before 150 ms", 100 * mega, &plan.Peers{Providers: 1, LAN: true}, works(far),
			plan.Decision{Reason: plan.HolderKnown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 150 * ms},
		},
		{
			"nor after 2 s", 100 * mega, &plan.Peers{Providers: 1, Expectation: plan.Expectation{FirstByte: 5 * time.Second}}, works(plan.Expectation{}),
			plan.Decision{Reason: plan.HolderKnown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 2 * time.Second},
		},
		{
			"an upstream that is as fast as its decoder, and a neighbour", 1000 * mega, &plan.Peers{Providers: 1, LAN: true},
			works(plan.Expectation{FirstByte: 1 * ms, Rate: 70 * mega}),
			plan.Decision{Reason: plan.HolderKnown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 150 * ms},
		},
		{
			"a neighbour who has brought little of late", 1000 * mega,
			&plan.Peers{Providers: 1, LAN: true, Expectation: plan.Expectation{FirstByte: 10 * ms, Rate: 5 * mega}}, works(near),
			plan.Decision{Reason: plan.HolderKnown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 150 * ms},
		},
		{
			"peers that have lied", 100 * mega, &plan.Peers{Providers: 1, LAN: true, Lied: true}, works(far),
			plan.Decision{Reason: plan.PeersLied, PeersAfter: 2 * time.Second, UpstreamAfter: 300 * ms},
		},
		{
			"peers that have lied, and no upstream", 100 * mega, &plan.Peers{Providers: 1, Lied: true},
			plan.Upstream{},
			plan.Decision{Reason: plan.HolderKnown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 500 * ms},
		},
		{
			"peers that are slower by far", 100 * mega, &plan.Peers{Providers: 1, Expectation: far}, works(near),
			plan.Decision{Reason: plan.UpstreamFaster, Search: true, PeersAfter: 150 * ms, UpstreamAfter: 150 * ms},
		},
		{
			"peers that are slower by far, but need to send little", 100 * mega, &plan.Peers{Providers: 1, Local: 0.95, Expectation: far}, works(near),
			plan.Decision{Reason: plan.HolderKnown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 300 * ms},
		},
		{
			"peers that are slower by far, and need to send half", 100 * mega, &plan.Peers{Providers: 1, Local: 0.5, Expectation: far}, works(near),
			plan.Decision{Reason: plan.UpstreamFaster, Search: true, PeersAfter: 150 * ms, UpstreamAfter: 150 * ms},
		},
		{
			"distant peers for a small NAR", 10_000, &plan.Peers{Providers: 1, Expectation: plan.Expectation{FirstByte: 300 * ms}}, works(near),
			plan.Decision{Reason: plan.UpstreamFaster, Search: true, PeersAfter: 150 * ms, UpstreamAfter: 150 * ms},
		},
		{
			"peers that are slower, but not clearly", 1000 * mega, &plan.Peers{Providers: 1, Expectation: plan.Expectation{FirstByte: 20 * ms, Rate: 45 * mega}}, works(near),
			plan.Decision{Reason: plan.HolderKnown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 150 * ms},
		},
		{
			"slow peers, and no upstream that works", 100 * mega, &plan.Peers{Providers: 1, Expectation: far},
			plan.Upstream{Expectation: near},
			plan.Decision{Reason: plan.HolderKnown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 300 * ms},
		},
		{
			"nobody is known, and no upstream works", 100 * mega, &plan.Peers{},
			plan.Upstream{},
			plan.Decision{Reason: plan.UpstreamsDown, PeersFirst: true, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 500 * ms},
		},
		{
			"a large NAR, and nobody is known", 100 * mega, &plan.Peers{}, works(near),
			plan.Decision{Reason: plan.NoHolderKnown, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 150 * ms},
		},
		{
			"a small NAR of an upstream of which nothing is known", 1000, &plan.Peers{}, works(plan.Expectation{}),
			plan.Decision{Reason: plan.NoHolderKnown, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 500 * ms},
		},
		{
			"a small NAR of a healthy upstream", 1 * mega, &plan.Peers{}, works(near),
			plan.Decision{Reason: plan.NotWorthSearch, PeersAfter: 2000 * ms, UpstreamAfter: 150 * ms},
		},
		{
			"a small NAR of a slow upstream", 1 * mega, &plan.Peers{}, works(plan.Expectation{FirstByte: 300 * ms, Rate: mega}),
			plan.Decision{Reason: plan.NoHolderKnown, Search: true, PeersAfter: 1000 * ms, UpstreamAfter: 300 * ms},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := plan.Decide(tt.bytes, tt.peers, tt.upstream); got != tt.want {
				t.Errorf("Decide() = %+v\nwant       %+v", got, tt.want)
			}
		})
	}
}

func TestJoins(t *testing.T) {
	rate := func(r float64) plan.Expectation { return plan.Expectation{FirstByte: 100 * ms, Rate: r} }
	for _, tt := range []struct {
		name      string
		bytes     int64
		one, runs plan.Expectation
		want      bool
	}{
		{"twice as fast", 100e6, rate(20e6), rate(10e6), true},
		{"a little faster", 100e6, rate(12e6), rate(10e6), false},
		{"twice as fast, for the last bytes", 1e6, rate(20e6), rate(10e6), false},
		{"nothing is known of it", 100e6, plan.Expectation{}, rate(10e6), false},
		{"nothing is known of the other", 100e6, rate(20e6), plan.Expectation{}, false},
	} {
		if got := plan.Joins(tt.bytes, tt.one, tt.runs); got != tt.want {
			t.Errorf("%s: Joins() = %v", tt.name, got)
		}
	}
}

func TestLost(t *testing.T) {
	const size = 100e6
	// runs has delivered all up to an offset, at this rate.
	runs := func(next int64, rate float64) plan.Runner {
		return plan.Runner{Next: next, Bytes: 10e6, Waited: time.Duration(10e6 / rate * 1e9), Running: 3 * time.Second, Delivering: 2 * time.Second}
	}
	silent := func(r plan.Runner, d time.Duration) plan.Runner {
		r.Silent = d
		return r
	}
	waits := func(e plan.Expectation, running time.Duration) plan.Runner {
		return plan.Runner{Expectation: e, Running: running, Silent: running}
	}
	for _, tt := range []struct {
		name      string
		r, leader plan.Runner
		want      bool
	}{
		{"slower", runs(40e6, 5e6), runs(50e6, 10e6), true},
		{"as fast, and behind", runs(40e6, 10e6), runs(50e6, 10e6), true},
		{"faster, and catches up before the end", runs(40e6, 20e6), runs(50e6, 10e6), false},
		{"faster, and does not catch up", runs(40e6, 11e6), runs(50e6, 10e6), true},
		{"slower, but the leader is silent", runs(40e6, 5e6), silent(runs(50e6, 10e6), 300*ms), false},
		{"both are silent", silent(runs(40e6, 5e6), 2*time.Second), silent(runs(50e6, 10e6), time.Second), true},
		{"faster, and has fallen silent", silent(runs(40e6, 1000e6), 1100*ms), runs(50e6, 10e6), true},
		{"not begun, of whom nothing is known", waits(plan.Expectation{}, 900*ms), runs(50e6, 10e6), false},
		{"not begun for too long", waits(plan.Expectation{}, 1100*ms), runs(50e6, 10e6), true},
		{"not begun, and usually slow to", waits(plan.Expectation{FirstByte: time.Second, Rate: 100e6}, 1100*ms), runs(50e6, 10e6), false},
		{"not begun, and will be done later", waits(plan.Expectation{FirstByte: 500 * ms, Rate: 10e6}, 100*ms), runs(50e6, 10e6), true},
		{"just begun", plan.Runner{Next: 40e6, Bytes: 1000, Waited: time.Second, Delivering: ms}, runs(50e6, 10e6), false},
		{"nobody has begun", waits(plan.Expectation{}, 1100*ms), waits(plan.Expectation{}, 1100*ms), false},
	} {
		if got := plan.Lost(size, tt.r, tt.leader); got != tt.want {
			t.Errorf("%s: Lost() = %v", tt.name, got)
		}
	}
}
