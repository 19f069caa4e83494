package main

import (
	"fmt"
	"os"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/e2e/rebuild"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// upgradePackages is the number of packages that are built and rebuilt, unless
// SCALE makes it less.
const upgradePackages = 60

// upgraded is a rebuild that a machine fetches.
type upgraded struct {
	name    string
	change  rebuild.Change
	buildID bool
	goal    goal
}

// upgrades are about what has to be fetched after a rebuild, in per cent of the
// NARs' bytes: beside the same without masks, beside what a store of files would
// fetch that knows files by their contents, and beside one that knows NARs by
// theirs.
func upgrades(s scale) []measurement {
	u := &upgrade{cfg: rebuild.Config{Packages: max(12, int(upgradePackages*float64(s))), Seed: 1}}
	return []measurement{u.measurement([]upgraded{
		{name: "line", change: rebuild.Line, goal: goal{what: "value", target: 5}},
		{name: "rename", change: rebuild.Rename},
		{name: "lengthen", change: rebuild.Lengthen},
		{name: "functions", change: rebuild.Functions},
		{name: "line-id", change: rebuild.Line, buildID: true},
		{name: "rename-id", change: rebuild.Rename, buildID: true},
	})}
}

// upgrade is the network in which all of that happens.
type upgrade struct {
	cfg     rebuild.Config
	network *rebuild.Network
	// first are the systems before, without and with build IDs.
	first map[bool]nix.StorePath
}

func (u *upgrade) measurement(cases []upgraded) measurement {
	m := measurement{}
	for _, c := range cases {
		name := "upgrade-" + c.name
		m.lines = append(m.lines, line{name: name, unit: "%", goal: c.goal},
			line{name: name + "-files", unit: "%"}, line{name: name + "-nars", unit: "%"})
	}
	m.setUp = func(l *lab.Lab, wanted want) (func() ([]sample, error), error) {
		var err error
		if u.network, err = rebuild.NewNetwork(l); err != nil {
			return nil, err
		}
		versions := l.Versions()
		u.network.Bin = versions[len(versions)-1].Bin
		u.first = make(map[bool]nix.StorePath)
		once := make([]func() ([]sample, error), len(cases))
		for i, c := range cases {
			if !wanted(m.lines[3*i].name) && !wanted(m.lines[3*i+1].name) && !wanted(m.lines[3*i+2].name) {
				continue
			}
			if once[i], err = u.prepare(l, c); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
		}
		return func() ([]sample, error) { return all(once) }, nil
	}
	return m
}

// all runs what was prepared of the cases. Each has three lines.
func all(cases []func() ([]sample, error)) (samples []sample, err error) {
	for _, once := range cases {
		three := make([]sample, 3)
		if once != nil {
			if three, err = once(); err != nil {
				return nil, err
			}
		}
		samples = append(samples, three...)
	}
	return samples, nil
}

// prepare builds what a case needs, and returns what measures it once.
func (u *upgrade) prepare(l *lab.Lab, c upgraded) (func() ([]sample, error), error) {
	cfg := u.cfg
	cfg.BuildID = c.buildID
	old, err := u.system(cfg)
	if err != nil {
		return nil, err
	}
	attribute := "system"
	if c.change == rebuild.Functions {
		attribute = rebuild.Rewritten(cfg)
	}
	cfg.Change = c.change
	path, err := u.network.Build(cfg, attribute)
	if err != nil {
		return nil, err
	}
	common, err := rebuild.Measure(l.Within(patience), u.network.Places(old), u.network.Places(path))
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "bench: upgrade-%s: %s\n", c.name, common)
	plain, err := u.network.Upgrade(old, path, "masked = false")
	if err != nil {
		return nil, err
	}
	percent := func(bytes int64) float64 { return 100 * float64(bytes) / float64(common.NARs) }
	return func() ([]sample, error) {
		masked, err := u.network.Upgrade(old, path)
		if err != nil {
			return nil, err
		}
		value := percent(masked.Fetched + masked.Others)
		return []sample{against(value, percent(plain.Fetched+plain.Others)), against(value, percent(common.OtherFiles)), against(value, percent(common.OtherNARs))}, nil
	}, nil
}

// system builds the system before the change, once.
func (u *upgrade) system(cfg rebuild.Config) (path nix.StorePath, err error) {
	if path, ok := u.first[cfg.BuildID]; ok {
		return path, nil
	}
	u.first[cfg.BuildID], err = u.network.Build(cfg, "system")
	return u.first[cfg.BuildID], err
}
