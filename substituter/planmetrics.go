package substituter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/plan"
)

// planMetrics measure whether the plans of fetches are any good.
type planMetrics struct {
	decisions, joins, won *prometheus.CounterVec
	wasted                *prometheus.CounterVec
	shared                prometheus.Counter
	accuracy              *prometheus.HistogramVec
}

func newPlanMetrics() *planMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &planMetrics{
		decisions: counter("nar_p2p_plan_decisions_total",
			"NARs by who was to start, after the local store, and why.", "first", "reason"),
		joins: counter("nar_p2p_plan_joins_total",
			"Sources that joined after the first, and why. All but those after a failure are hedges.", "source", "why"),
		won: counter("nar_p2p_plan_won_total",
			"NARs by who brought the last byte, and whether a hedge had been started.", "source", "hedged"),
		wasted: counter("nar_p2p_plan_wasted_bytes_total",
			"Bytes that came in vain: another source was quicker, they had to come once more, or they were wrong.", "source"),
		shared: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nar_p2p_plan_shared_total",
			Help: "Requests for NARs that were answered out of a fetch that was under way.",
		}),
		accuracy: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "nar_p2p_plan_real_to_expected_ratio",
			Help:    "Real time by expected time, to the first and the last byte, where one source brought all.",
			Buckets: []float64{.125, .25, .5, .8, 1, 1.25, 2, 4, 8},
		}, []string{"source", "byte"}),
	}
	// What is not counted yet is 0 and not absent.
	for k := range kind(allKinds) {
		m.wasted.WithLabelValues(k.String())
	}
	return m
}

// first is who starts, as metrics call it.
func first(d plan.Decision) string {
	if d.PeersFirst {
		return fromPeers.String()
	}
	return fromUpstream.String()
}

func (m *planMetrics) decided(p *fetchPlan) {
	m.decisions.WithLabelValues(first(p.Decision), string(p.Reason)).Inc()
}

func (m *planMetrics) joined(k kind, why explain.Joining) {
	m.joins.WithLabelValues(k.String(), string(why)).Inc()
}

func (m *planMetrics) waste(k kind, n int) { m.wasted.WithLabelValues(k.String()).Add(float64(n)) }

func (m *planMetrics) firstByte(e *entry, took time.Duration) {
	if e.expected.FirstByte > 0 {
		m.accuracy.WithLabelValues(e.kind().String(), "first").Observe(took.Seconds() / e.expected.FirstByte.Seconds())
	}
}

// complete counts a fetch that is.
func (m *planMetrics) complete(f *fetch) {
	if len(f.givers) == 0 {
		return // there was nothing to fetch
	}
	last := f.givers[len(f.givers)-1]
	hedged := "no"
	if f.hedged {
		hedged = "yes"
	}
	m.won.WithLabelValues(last.kind().String(), hedged).Inc()
	if total, ok := last.expected.Total(f.size() - f.begun); ok && len(f.givers) == 1 && total > 0 {
		m.accuracy.WithLabelValues(last.kind().String(), "last").Observe(time.Since(f.begin).Seconds() / total.Seconds())
	}
}

func (m *planMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.decisions, m.joins, m.won, m.wasted, m.shared, m.accuracy}
}
