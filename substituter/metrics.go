package substituter

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of requests, as metrics call them.
const (
	resultFound  = "found"
	resultServed = "served"
	resultAbsent = "absent"
	// resultUnknown is a narinfo that was not found, while not everybody who
	// could know has said that there is none.
	resultUnknown = "unknown"
	resultFailed  = "failed" // no source delivered the NAR
	// resultBroken is a NAR that was broken off.
	resultBroken = "broken"
	resultGone   = "gone" // the client
)

// reused is, beside the kinds of sources, what came out of other paths of the
// local store.
const reused = "reuse"

// Stats is what the server has done since it was made.
type Stats struct {
	// Narinfos and NARs count requests by their result.
	Narinfos map[string]uint64 `json:"narinfos"`
	NARs     map[string]uint64 `json:"nars"`
	// NARBytes are the bytes taken from each kind of source: store, peer and
	// upstream; and reuse, which is from other paths of the store where peers sent
	// the manifest.
	NARBytes  map[string]uint64 `json:"narBytes"`
	Upstreams []UpstreamStatus  `json:"upstreams"`
}

// Stats returns a snapshot.
func (s *Server) Stats() Stats {
	stats := Stats{
		Narinfos: s.counters.narinfos.values(), NARs: s.counters.nars.values(), NARBytes: s.counters.bytes.values(),
		Upstreams: []UpstreamStatus{},
	}
	for _, m := range s.setup().upstreams {
		stats.Upstreams = append(stats.Upstreams, m.status())
	}
	return stats
}

// counters is the one place where things are counted; Prometheus and Stats
// both read it.
type counters struct {
	narinfos, prefetch, nars, bytes *family
	conflicts                       *family
}

func newCounters() *counters {
	return &counters{
		narinfos: newFamily("nar_p2p_narinfo_requests_total", "Requests for narinfos.", "result",
			resultFound, resultAbsent, resultUnknown),
		prefetch: newFamily("nar_p2p_narinfo_prefetch_total", "Lookups of narinfos before Nix asked for them.", "event",
			aheadStarted, aheadUsed, aheadWasted, aheadDropped),
		nars: newFamily("nar_p2p_nar_requests_total", "Requests for NARs.", "result",
			resultServed, resultAbsent, resultFailed, resultBroken, resultGone),
		bytes: newFamily("nar_p2p_nar_bytes_total", "Uncompressed bytes of NARs taken from each kind of source.", "source",
			fromStore.String(), fromPeers.String(), fromUpstream.String(), reused),
		conflicts: newFamily("nar_p2p_conflicts_total", "Validly signed records of a path that contradict another one.", "in",
			inNARHash, inNARSize, inReferences),
	}
}

func (c *counters) families() []*family {
	return []*family{c.narinfos, c.prefetch, c.nars, c.bytes, c.conflicts}
}

// Describe implements prometheus.Collector.
func (c *counters) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.families() {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *counters) Collect(ch chan<- prometheus.Metric) {
	for _, f := range c.families() {
		for label, n := range f.values() {
			ch <- prometheus.MustNewConstMetric(f.desc, prometheus.CounterValue, float64(n), label)
		}
	}
}

// family is counters that differ in one label.
type family struct {
	desc   *prometheus.Desc
	counts map[string]*atomic.Uint64 // not changed after newFamily
}

func newFamily(name, help, label string, values ...string) *family {
	f := &family{
		desc:   prometheus.NewDesc(name, help, []string{label}, nil),
		counts: make(map[string]*atomic.Uint64, len(values)),
	}
	for _, v := range values {
		f.counts[v] = new(atomic.Uint64)
	}
	return f
}

func (f *family) add(label string) { f.count(label, 1) }

func (f *family) count(label string, n int) { f.counts[label].Add(uint64(n)) }

func (f *family) values() map[string]uint64 {
	values := make(map[string]uint64, len(f.counts))
	for label, n := range f.counts {
		values[label] = n.Load()
	}
	return values
}
