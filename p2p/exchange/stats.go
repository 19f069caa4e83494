package exchange

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are since the start, but for uploads, which are under way.
type counters struct {
	raw, zstd, sessions, queries, uploads atomic.Int64
}

// ServerStats tells what a server has done since its start.
type ServerStats struct {
	// BytesServed counts the chunks' bytes as they travelled, BytesCompressed
	// those among them that were compressed.
	BytesServed, BytesCompressed int64
	// Sessions counts NAR sessions, ActiveSessions those open now and Uploads
	// those that are being sent chunks.
	Sessions, ActiveSessions, Uploads int64
	// Queries counts have and narinfo requests.
	Queries int64
	// Refused counts streams that were not admitted or found no room.
	Refused int64
}

// Stats returns what was done so far.
func (s *Server) Stats() ServerStats {
	compressed := s.counters.zstd.Load()
	return ServerStats{
		BytesServed:     s.counters.raw.Load() + compressed,
		BytesCompressed: compressed,
		Sessions:        s.counters.sessions.Load(),
		ActiveSessions:  int64(s.sessions.inUse()),
		Uploads:         s.counters.uploads.Load(),
		Queries:         s.counters.queries.Load(),
		Refused:         s.refusals.total(),
	}
}

// register adds the metrics, which panics where they are registered already.
func (s *Server) register(r prometheus.Registerer) {
	opts := func(name, help, label, value string) prometheus.Opts {
		o := prometheus.Opts{Namespace: "nar_p2p", Subsystem: "exchange", Name: name, Help: help}
		if label != "" {
			o.ConstLabels = prometheus.Labels{label: value}
		}
		return o
	}
	counter := func(name, help, label, value string, count func() int64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts(opts(name, help, label, value)),
			func() float64 { return float64(count()) }))
	}
	gauge := func(name, help string, value func() int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, help, "", "")),
			func() float64 { return float64(value()) }))
	}
	const served = "Bytes of chunks sent to peers, as they travelled."
	counter("served_bytes_total", served, "encoding", "raw", s.counters.raw.Load)
	counter("served_bytes_total", served, "encoding", "zstd", s.counters.zstd.Load)
	counter("sessions_total", "NAR sessions served.", "", "", s.counters.sessions.Load)
	counter("queries_total", "Have and narinfo requests served.", "", "", s.counters.queries.Load)
	for _, reason := range refusalReasons {
		counter("refused_total", "Streams not admitted or without room.", "reason", string(reason),
			func() int64 { return s.refusals.of(reason) })
	}
	gauge("active_sessions", "NAR sessions open now.", func() int64 { return int64(s.sessions.inUse()) })
	gauge("uploads", "NAR sessions that are being sent chunks.", s.counters.uploads.Load)
}
