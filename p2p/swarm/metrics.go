package swarm

import "github.com/prometheus/client_golang/prometheus"

// metrics are what transfers came to.
type metrics struct {
	verified, wasted, restarts prometheus.Counter
}

func newMetrics(r prometheus.Registerer) metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "nar_p2p", Subsystem: "swarm", Name: name, Help: help})
	}
	m := metrics{
		verified: counter("verified_bytes_total", "Bytes from peers that were verified chunk by chunk."),
		wasted:   counter("wasted_bytes_total", "Bytes from peers that came twice, wrong, or under a manifest that was given up."),
		restarts: counter("restarts_total", "Transfers begun anew under another manifest."),
	}
	if r != nil {
		r.MustRegister(m.verified, m.wasted, m.restarts)
	}
	return m
}

// count adds up a transfer that has ended.
func (m metrics) count(p Progress) {
	m.verified.Add(float64(p.Verified))
	m.wasted.Add(float64(p.Wasted))
}
