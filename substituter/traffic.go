package substituter

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/internal/moment"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// asking is what upstreams are asked for, as metrics call it.
type asking string

const (
	askedNarinfo asking = "narinfo"
	askedNAR     asking = "nar"
	askedFile    asking = "file"
	askedProbe   asking = "probe"
)

// resultSkipped is a question that was not put to an upstream, because it is
// left alone.
const resultSkipped = "skipped"

// traffic is metrics of the upstreams, labelled with their addresses.
type traffic struct {
	upstreams        func() []*mirror
	requests         *prometheus.CounterVec
	latency          *prometheus.HistogramVec
	open, throughput *prometheus.Desc
}

func newTraffic(upstreams func() []*mirror) *traffic {
	label := []string{"upstream"}
	return &traffic{
		upstreams: upstreams,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nar_p2p_upstream_requests_total",
			Help: "Requests to upstreams, for narinfos, NARs, other files, or to see whether they work.",
		}, []string{"upstream", "for", "result"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "nar_p2p_upstream_latency_seconds",
			Help:    "What upstreams took to answer for a narinfo, or to say that it is absent.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, label),
		open: prometheus.NewDesc("nar_p2p_upstream_open",
			"1 while the upstream is left alone, or on trial, for having failed; its circuit breaker is open.", label, nil),
		throughput: prometheus.NewDesc("nar_p2p_upstream_throughput_bytes_per_second",
			"How fast the upstream's NARs have come of late, uncompressed.", label, nil),
	}
}

func (t *traffic) count(m *mirror, what asking, err error) {
	result := resultFailed
	switch {
	case err == nil:
		result = resultFound
	case errors.Is(err, upstream.ErrAbsent):
		result = resultAbsent
	}
	t.add(m, what, result)
}

func (t *traffic) add(m *mirror, what asking, result string) {
	t.requests.WithLabelValues(m.String(), string(what), result).Inc()
}

// Describe implements prometheus.Collector.
func (t *traffic) Describe(ch chan<- *prometheus.Desc) {
	t.requests.Describe(ch)
	t.latency.Describe(ch)
	ch <- t.open
	ch <- t.throughput
}

// Collect implements prometheus.Collector.
func (t *traffic) Collect(ch chan<- prometheus.Metric) {
	t.requests.Collect(ch)
	t.latency.Collect(ch)
	for _, m := range t.upstreams() {
		state := m.health.State()
		open := 0.0
		if state.Open {
			open = 1
		}
		ch <- prometheus.MustNewConstMetric(t.open, prometheus.GaugeValue, open, m.String())
		ch <- prometheus.MustNewConstMetric(t.throughput, prometheus.GaugeValue, state.Throughput, m.String())
	}
}

// UpstreamStatus is what is known of one upstream.
type UpstreamStatus struct {
	URL string `json:"url"`
	// Private is true if strangers are not told of its paths.
	Private bool `json:"private"`
	// Reachable is false while the upstream is left alone for having failed.
	Reachable bool `json:"reachable"`
	// State is "unknown" before the first answer, "ok", "slow", "open" while it is
	// not reachable, or "narinfos only" while it is not asked for NARs since those
	// have failed.
	State string `json:"state"`
	// LatencySeconds is the average of what it took to answer of late, and
	// BytesPerSecond that of how fast NARs came; 0 if there is none.
	LatencySeconds float64 `json:"latencySeconds,omitempty"`
	BytesPerSecond float64 `json:"bytesPerSecond,omitempty"`
	// Problem is its last failure, if it has not answered since, and OpenUntil
	// the time of its next trial; of its NARs where only these have failed.
	Problem   string    `json:"problem,omitempty"`
	OpenUntil time.Time `json:"openUntil,omitzero"`
}

func (m *mirror) status() UpstreamStatus {
	known := m.health.State()
	status := UpstreamStatus{
		URL: m.String(), Private: m.private, Reachable: !known.Open, State: "ok",
		LatencySeconds: known.Latency.Seconds(), BytesPerSecond: known.Throughput,
		Problem: known.Problem, OpenUntil: known.Until,
	}
	switch {
	case known.Open:
		status.State = "open"
	case known.NARs.Open:
		status.State, status.Problem, status.OpenUntil = "narinfos only", known.NARs.Problem, known.NARs.Until
	case known.Slow():
		status.State = "slow"
	case known.Heard.IsZero():
		status.State = "unknown"
	}
	status.OpenUntil = moment.Shown(status.OpenUntil)
	return status
}
