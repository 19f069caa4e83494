package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// fetching is how many peers a provider serves at once.
const fetching = 8

// memories are about what a large NAR takes of the memory, at most, of the
// daemons that it goes through. What they have when idle is the baseline.
func memories(s scale) []measurement {
	most := goal{what: "value", target: 150}
	return []measurement{{
		lines: []line{{name: "memory-consumer", unit: "MiB", goal: most}, {name: "memory-provider", unit: "MiB", goal: most}},
		setUp: func(l *lab.Lab, wanted want) (func() ([]sample, error), error) {
			c, err := newCargo(l, s.mib(2048), false)
			if err != nil {
				return nil, err
			}
			provider := c.provider("provider", nil, nil)
			var consumers []*daemon
			for i := range fetching {
				consumers = append(consumers, c.consumer(fmt.Sprintf("consumer-%d", i), nil, provider))
			}
			provider.WaitAnnounced(1)
			measures := make([]func() (sample, error), 2)
			if wanted("memory-consumer") {
				measures[0] = func() (sample, error) { return peak(consumers[0].Daemon, consumers[:1]) }
			}
			if wanted("memory-provider") {
				measures[1] = func() (sample, error) { return peak(provider, consumers) }
			}
			return each(measures), nil
		},
	}}
}

// peak returns how much memory a daemon has at most while all of these fetch the
// NAR.
func peak(d *lab.Daemon, consumers []*daemon) (sample, error) {
	if err := os.WriteFile(filepath.Join(proc(d), "clear_refs"), []byte("5"), 0); err != nil { // Resets VmHWM.
		return sample{}, err
	}
	idle, err := resident(d)
	if err != nil {
		return sample{}, err
	}
	var all errgroup.Group
	for _, c := range consumers {
		all.Go(func() error {
			_, err := c.fetch()
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return sample{}, err
	}
	most, err := resident(d)
	return against(most, idle), err
}

func proc(d *lab.Daemon) string { return fmt.Sprintf("/proc/%d", d.PID()) }

// resident returns the most memory that a daemon has had, in MiB.
func resident(d *lab.Daemon) (float64, error) {
	status, err := os.ReadFile(filepath.Join(proc(d), "status"))
	if err != nil {
		return 0, err
	}
	_, text, found := bytes.Cut(status, []byte("\nVmHWM:"))
	if !found {
		return 0, errors.New("the kernel does not tell how much memory a program has had")
	}
	kib := 0.0
	_, err = fmt.Sscan(string(text), &kib)
	return kib / 1024, err
}

// firstBytes are about a NAR whose provider has yet to compute the manifest. The
// baseline is the time when it has.
func firstBytes(s scale) []measurement {
	return []measurement{{
		lines: []line{{name: "first-byte", unit: "s", goal: goal{what: "value", target: 0.5}}},
		setUp: func(l *lab.Lab, _ want) (func() ([]sample, error), error) {
			c, err := newCargo(l, s.mib(1024), false)
			if err != nil {
				return nil, err
			}
			runs := 0
			return func() ([]sample, error) {
				runs++
				name := func(s string) string { return fmt.Sprintf("%s-%d", s, runs) }
				provider := c.provider(name("provider"), nil, nil)
				consumer := c.consumer(name("consumer"), nil, provider)
				provider.WaitAnnounced(1)
				first, err := consumer.fetch()
				if err != nil {
					return nil, err
				}
				second, err := consumer.fetch()
				if err != nil {
					return nil, err
				}
				return []sample{against(first.first, second.first)}, errors.Join(consumer.Stop(), provider.Stop())
			}, nil
		},
	}}
}
