package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/internal/version"
)

// gauges are how the node stands, as it is asked.
type gauges struct {
	*daemon

	build, paused, metered, paths, peers, keys *prometheus.Desc
}

func newGauges(d *daemon) *gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("nar_p2p_"+name, help, labels, nil)
	}
	return &gauges{
		daemon:  d,
		build:   desc("build_info", "1, with the daemon's version.", "version"),
		paused:  desc("sharing_paused", "1 while the owner has paused sharing."),
		metered: desc("connection_metered", "1 while the connection is paid for by volume, and nothing is shared."),
		paths:   desc("shareable_paths", "Paths that peers may have."),
		peers:   desc("peers", "Connected peers: nodes of nar-p2p on the local network (lan) or not (afar), and others of the DHT (dht).", "kind"),
		keys:    desc("announce_keys", "Keys for the DHT: announced, waiting for that, beyond the budget (skipped), or taking turns (resting).", "state"),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.build, g.paused, g.metered, g.paths, g.peers, g.keys} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	gauge(g.build, 1, version.String())
	paused := 0
	if g.sharing.state().Paused {
		paused = 1
	}
	gauge(g.paused, paused)
	metered := 0
	if g.line.rests() {
		metered = 1
	}
	gauge(g.metered, metered)
	gauge(g.paths, g.catalog.Len())
	if g.node == nil {
		return
	}
	kinds := map[string]int{"lan": 0, "afar": 0, "dht": 0}
	for _, p := range g.node.Peers() {
		switch {
		case !p.Exchange:
			kinds["dht"]++
		case p.LAN:
			kinds["lan"]++
		default:
			kinds["afar"]++
		}
	}
	for kind, n := range kinds {
		gauge(g.peers, n, kind)
	}
	if a := g.node.Status().Announcing; a != nil {
		gauge(g.keys, a.Keys-a.Waiting, "announced")
		gauge(g.keys, a.Waiting, "waiting")
		gauge(g.keys, a.Skipped, "skipped")
		gauge(g.keys, a.Resting, "resting")
	}
}
