package locate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// quiet is how long nothing is looked for before what comes next counts as
// another closure.
const quiet = 30 * time.Second

// metrics count what lookups cost.
type metrics struct {
	walks, requests *prometheus.CounterVec
	closure         closure
}

// closure counts the lookups that follow each other closely, which are mostly
// for one closure. The Finder's mu guards it.
type closure struct {
	perClosure     prometheus.Histogram
	lookups, walks int
	last           time.Time
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		walks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "nar_p2p", Subsystem: "dht", Name: "walks_total", Help: "Walks through the DHT to find peers.",
		}, []string{"kind", "result"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "nar_p2p", Subsystem: "locate", Name: "requests_total", Help: "Have and narinfo requests to peers.",
		}, []string{"kind", "result"}),
	}
	m.closure.perClosure = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "nar_p2p", Subsystem: "dht", Name: "walks_per_closure",
		Help:    "Walks through the DHT for lookups that followed each other closely.",
		Buckets: []float64{0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000},
	})
	if r != nil {
		r.MustRegister(m.walks, m.requests, m.closure.perClosure)
	}
	return m
}

// looked counts a lookup.
func (c *closure) looked(now time.Time) {
	c.sweep(now)
	c.lookups++
	c.last = now
}

// walked counts a walk.
func (c *closure) walked() { c.walks++ }

// sweep takes note of a closure that is over.
func (c *closure) sweep(now time.Time) {
	if c.lookups > 0 && now.Sub(c.last) >= quiet {
		c.perClosure.Observe(float64(c.walks))
		c.lookups, c.walks = 0, 0
	}
}
