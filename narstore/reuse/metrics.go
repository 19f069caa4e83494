package reuse

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the index came to.
type metrics struct {
	reused, indexed *prometheus.CounterVec
	failed          prometheus.Counter
}

func newMetrics(r prometheus.Registerer, rs *records) metrics {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "nar_p2p", Subsystem: "reuse", Name: name, Help: help}
	}
	m := metrics{
		reused: prometheus.NewCounterVec(opts("bytes_total",
			"Bytes of NARs that were taken from other paths of the local store: as they are (sum), with other hash parts (masked), or with other names too (renamed)."), []string{"how"}),
		indexed: prometheus.NewCounterVec(opts("indexed_bytes_total",
			"Bytes of NARs that were indexed: of relatives of what is fetched, of what was fetched, and in the background."), []string{"why"}),
		failed: prometheus.NewCounter(opts("failed_chunks_total", "Chunks that were not, or no longer, where the index said.")),
	}
	for _, how := range []How{BySum, ByMaskedSum, ByName} {
		m.reused.WithLabelValues(how.String())
	}
	for _, why := range []string{onDemand, byFetch, inBackground} {
		m.indexed.WithLabelValues(why)
	}
	if r != nil {
		r.MustRegister(m.reused, m.indexed, m.failed, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "nar_p2p", Subsystem: "reuse", Name: "index_bytes", Help: "What the index of local chunks takes on the disk, about.",
		}, func() float64 { return float64(rs.bytes()) }))
	}
	return m
}

func (m metrics) countIndexed(why string, n int64) { m.indexed.WithLabelValues(why).Add(float64(n)) }
