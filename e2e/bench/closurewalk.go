package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

const (
	walkPaths = 200
	// walkDepth is the longest chain of references. Closures of nixpkgs of this
	// size have 10 to 15.
	walkDepth = 12
	walkDelay = 80 * time.Millisecond
)

// closureWalks are about the time in which Nix learns what is in a closure,
// from an upstream that takes 80 ms for each answer: through a daemon that
// starts with nothing, beside the upstream itself.
func closureWalks() []measurement {
	goal := goal{what: "ratio", target: 0.5}
	return []measurement{
		closureWalk("closure-walk", goal, "nix-store", "--realise", "--dry-run"),
		closureWalk("closure-walk-path-info", goal, "nix", "path-info", "--recursive", "--store", theCache),
	}
}

// theCache stands in a command for the URL of the cache that is asked.
const theCache = "URL"

// closureWalk times a command, to which the closure's root is added.
func closureWalk(name string, g goal, command ...string) measurement {
	return measurement{
		lines: []line{{name: name, unit: "s", goal: g}},
		setUp: func(l *lab.Lab) (func() ([]sample, error), error) {
			w, err := newWalk(l, command)
			if err != nil {
				return nil, err
			}
			return w.once, nil
		},
	}
}

// walk is one command on its way through a closure.
type walk struct {
	*lab.Lab
	command  []string
	root     string
	keys     []string
	upstream *lab.Upstream
	version  lab.Version
	runs     int
}

func newWalk(l *lab.Lab, command []string) (*walk, error) {
	key, err := narinfo.GenerateSecretKey("bench-1")
	if err != nil {
		return nil, err
	}
	dir := l.Dir("cache")
	made, err := closure.Generate(l.Context(), dir, closure.Config{
		Paths: walkPaths, Depth: walkDepth, Seed: 1, Key: key, MaxFileSize: 1 << 10,
	})
	if err != nil {
		return nil, err
	}
	versions := l.Versions()
	w := &walk{
		Lab: l, command: command, root: made.Root().StorePath.String(), keys: []string{key.Public().String()},
		upstream: l.Upstream(dir), version: versions[len(versions)-1],
	}
	w.upstream.SetDelay(walkDelay)
	return w, nil
}

// once times a walk on the upstream, and one through a daemon.
func (w *walk) once() ([]sample, error) {
	w.runs++
	baseline, err := w.time("direct", w.upstream.URL)
	if err != nil {
		return nil, err
	}
	d := w.Daemon(fmt.Sprintf("daemon-%d", w.runs), lab.DaemonConfig{
		Profile: "off", Upstreams: []string{w.upstream.URL}, Keys: w.keys,
	})
	value, err := w.time("through", d.URL())
	if err != nil {
		return nil, err
	}
	return []sample{{value, baseline}}, d.Stop()
}

// time runs the command with a Nix that knows nothing yet, and returns the
// seconds it took.
func (w *walk) time(name, url string) (float64, error) {
	store := w.Nix(fmt.Sprintf("%s-%d", name, w.runs), lab.NixConfig{Substituters: []string{url}, TrustedKeys: w.keys, Bin: w.version.Bin})
	store.Init()
	args := append(slices.Clone(w.command[1:]), w.root)
	for i, arg := range args {
		if arg == theCache {
			args[i] = url
		}
	}
	before := w.upstream.Served(lab.Narinfo)
	began := time.Now()
	_, err := store.Run(w.Context(), w.command[0], args...)
	took := time.Since(began)
	if asked := w.upstream.Served(lab.Narinfo) - before; err == nil && asked < walkPaths {
		err = fmt.Errorf("%s asked for %d narinfos of %d", w.command[0], asked, walkPaths)
	}
	return took.Seconds(), err
}
