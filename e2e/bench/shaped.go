package main

import (
	"fmt"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

const (
	mbit = 1_000_000
	gbit = 1000 * mbit
	// oneWay makes a round trip of 20 ms.
	oneWay = 10 * time.Millisecond
)

// remote is a network in which a consumer with a line of 1 Gbit/s fetches from
// providers that are far.
type remote struct {
	*cargo
	providers []*lab.Host
	consumer  *lab.Host
	daemon    *daemon
}

func newRemote(c *cargo, providers int, line lab.Line) *remote {
	net := c.Net()
	r := &remote{cargo: c, consumer: net.Host("11.0.1.1", lab.Line{Rate: gbit})}
	var daemons []*lab.Daemon
	for i := range providers {
		host := net.Host(fmt.Sprintf("11.0.0.%d", i+1), line)
		var bootstrap *lab.Daemon
		if i > 0 {
			bootstrap = daemons[0]
		}
		daemons = append(daemons, c.provider(fmt.Sprintf("provider-%d", i), host, bootstrap))
		r.providers = append(r.providers, host)
	}
	r.daemon = c.consumer("consumer", r.consumer, daemons[0])
	for _, d := range daemons {
		d.WaitAnnounced(1)
	}
	serveIperf(r.providers)
	return r
}

// rater measures a rate in MB/s.
type rater func() (float64, error)

// compare returns what measures the daemon's rate once, and each baseline's next
// to it. A baseline that is nil gives an empty sample.
func (r *remote) compare(baselines ...rater) func() ([]sample, error) {
	return func() ([]sample, error) {
		top, err := ceiling(r.Lab, r.providers, r.consumer)
		if err != nil {
			return nil, err
		}
		ours, err := r.daemon.rate()
		if err != nil {
			return nil, err
		}
		samples := make([]sample, len(baselines))
		for i, baseline := range baselines {
			if baseline == nil {
				continue
			}
			theirs, err := baseline()
			if err != nil {
				return nil, err
			}
			samples[i] = sample{value: ours, baseline: theirs, ceiling: top}
		}
		return samples, nil
	}
}

// fourPeers are about what several providers give together.
func fourPeers(s scale) []measurement {
	slow := lab.Line{Rate: 50 * mbit, Delay: oneWay}
	return []measurement{{
		lines: []line{
			{name: "four-peers", unit: "MB/s", goal: goal{what: "ratio", target: 0.97, atLeast: true}},
			{name: "four-peers-libtorrent", unit: "MB/s", goal: goal{what: "ratio", target: 1, atLeast: true}},
			{name: "four-peers-kubo", unit: "MB/s", goal: goal{what: "ratio", target: 2, atLeast: true}},
		},
		setUp: func(l *lab.Lab, wanted want) (func() ([]sample, error), error) {
			c, err := newCargo(l, s.mib(256), false)
			if err != nil {
				return nil, err
			}
			r := newRemote(c, 4, slow)
			var baselines [3]rater
			if wanted("four-peers") {
				baselines[0] = c.newMirrors(r.providers, r.consumer).rate
			}
			if wanted("four-peers-libtorrent") {
				t, err := c.newTorrents(libtorrent(c.File("torrent.py", libtorrentScript)), r.providers, r.consumer)
				if err != nil {
					return nil, err
				}
				baselines[1] = t.rate
			}
			if wanted("four-peers-kubo") {
				k, err := c.newKubos(r.providers, r.consumer)
				if err != nil {
					return nil, err
				}
				baselines[2] = k.rate
			}
			return r.compare(baselines[:]...), nil
		},
	}, {
		lines: []line{{name: "four-peers-text", unit: "MB/s", goal: goal{what: "ratio", target: 1, atLeast: true}}},
		setUp: func(l *lab.Lab, _ want) (func() ([]sample, error), error) {
			c, err := newCargo(l, s.mib(256), true)
			if err != nil {
				return nil, err
			}
			r := newRemote(c, 4, slow)
			return func() ([]sample, error) {
				samples, err := r.compare(func() (float64, error) { return 1, nil })()
				if err == nil {
					samples[0].baseline = samples[0].ceiling
				}
				return samples, err
			}, nil
		},
	}}
}

// onePeer is about a provider alone.
func onePeer(s scale) []measurement {
	toCurl := func(name string, rate, size int64) measurement {
		return measurement{
			lines: []line{{name: name, unit: "MB/s", goal: goal{what: "ratio", target: 0.95, atLeast: true}}},
			setUp: func(l *lab.Lab, _ want) (func() ([]sample, error), error) {
				c, err := newCargo(l, size, false)
				if err != nil {
					return nil, err
				}
				r := newRemote(c, 1, lab.Line{Rate: rate, Delay: oneWay})
				url := c.served("nginx", r.providers[0])
				return r.compare(func() (float64, error) {
					got, err := c.download(r.consumer, url)
					return got.rate(), err
				}), nil
			},
		}
	}
	return []measurement{toCurl("one-peer-gigabit", gbit, s.mib(1024)), toCurl("one-peer-hundred", 100*mbit, s.mib(128))}
}

// lossy is about lines that lose packets.
func lossy(s scale) []measurement {
	return []measurement{{
		lines: []line{{name: "four-peers-lossy", unit: "MB/s", goal: goal{what: "ratio", target: 1, atLeast: true}}},
		setUp: func(l *lab.Lab, _ want) (func() ([]sample, error), error) {
			c, err := newCargo(l, s.mib(64), false)
			if err != nil {
				return nil, err
			}
			r := newRemote(c, 4, lab.Line{Rate: 100 * mbit, Delay: oneWay, Loss: 0.01})
			t, err := c.newTorrents(aria2, r.providers, r.consumer)
			if err != nil {
				return nil, err
			}
			return r.compare(t.rate), nil
		},
	}}
}
