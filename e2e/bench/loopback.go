package main

import (
	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// loopbacks are about what the programs themselves cost: a provider and a
// consumer on one machine.
func loopbacks(s scale) []measurement {
	return []measurement{{
		lines: []line{
			{name: "loopback", unit: "MB/s", goal: goal{what: "ratio", target: 0.6, atLeast: true}},
			{name: "loopback-kubo", unit: "MB/s", goal: goal{what: "ratio", target: 3, atLeast: true}},
			{name: "loopback-nix", unit: "s", goal: goal{what: "ratio", target: 1.15}},
			{name: "loopback-nix-bare", unit: "s"},
		},
		setUp: func(l *lab.Lab, wanted want) (func() ([]sample, error), error) {
			return setUpLoopback(l, wanted, s.mib(1024))
		},
	}}
}

func setUpLoopback(l *lab.Lab, wanted want, size int64) (func() ([]sample, error), error) {
	c, err := newCargo(l, size, false)
	if err != nil {
		return nil, err
	}
	provider := c.provider("provider", nil, nil)
	consumer := c.consumer("consumer", nil, provider)
	provider.WaitAnnounced(1)
	compare := func(baseline rater) (sample, error) {
		theirs, err := baseline()
		if err != nil {
			return sample{}, err
		}
		ours, err := consumer.rate()
		return against(ours, theirs), err
	}
	measures := make([]func() (sample, error), 4)
	if wanted("loopback") {
		measures[0] = func() (sample, error) {
			return compare(func() (float64, error) { return bareStream(l.Within(patience), c.record.NARSize) })
		}
	}
	if wanted("loopback-kubo") {
		k, err := c.newKubos([]*lab.Host{nil}, nil)
		if err != nil {
			return nil, err
		}
		measures[1] = func() (sample, error) { return compare(k.rate) }
	}
	if !wanted("loopback-nix") && !wanted("loopback-nix-bare") {
		return each(measures), nil
	}
	nginx, nix := l.Nginx("nginx", c.cache), newClient(l, nil, c.keys)
	into := func(url string) (float64, error) { return nix.copy(url, c.record.StorePath) }
	beside := func(measure func() (float64, error)) func() (sample, error) {
		return func() (sample, error) {
			theirs, err := into(nginx)
			if err != nil {
				return sample{}, err
			}
			ours, err := measure()
			return against(ours, theirs), err
		}
	}
	if wanted("loopback-nix") {
		measures[2] = beside(func() (float64, error) { return into(consumer.URL()) })
	}
	if wanted("loopback-nix-bare") {
		measures[3] = beside(func() (float64, error) { return c.throughPipeline(into) })
	}
	return each(measures), nil
}

// each returns what measures every line by itself, but for those of which the
// measure is nil.
func each(measures []func() (sample, error)) func() ([]sample, error) {
	return func() ([]sample, error) {
		samples := make([]sample, len(measures))
		for i, measure := range measures {
			if measure == nil {
				continue
			}
			var err error
			if samples[i], err = measure(); err != nil {
				return nil, err
			}
		}
		return samples, nil
	}
}
