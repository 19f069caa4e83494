package main

import (
	"fmt"
	"strings"
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
	walkRTT   = 80 * time.Millisecond
)

// closureWalks are about the time in which Nix learns what is in a closure,
// from an upstream that is 80 ms away: through a daemon that has just been
// started and knows nothing, with and without looking ahead, beside the upstream
// itself.
func closureWalks() []measurement {
	return []measurement{
		closureWalk("closure-walk", dryRun, true),
		closureWalk("closure-walk-http1", dryRun, false),
		closureWalk("closure-walk-one-by-one", pathInfo, true),
	}
}

// command returns a Nix command that walks through the closure of root on the
// cache at url, and what of it says that it has seen all of it.
type command func(url, root string) (args []string, complete func(stdout, stderr string) bool)

// dryRun is what every substitution begins with.
func dryRun(_, root string) ([]string, func(stdout, stderr string) bool) {
	return []string{"nix-store", "--realise", "--dry-run", root}, func(_, stderr string) bool {
		return strings.Contains(stderr, fmt.Sprintf("these %d paths will be fetched", walkPaths))
	}
}

// pathInfo asks as `nix copy` does.
func pathInfo(url, root string) ([]string, func(stdout, stderr string) bool) {
	return []string{"nix", "path-info", "--recursive", "--store", url, root}, func(stdout, _ string) bool {
		return strings.Count(stdout, "\n") == walkPaths
	}
}

// closureWalk times a command. The upstream speaks HTTP/2 over TLS, or HTTP/1.1.
func closureWalk(name string, c command, http2 bool) measurement {
	return measurement{
		lines: []line{
			{name: name, unit: "s", goal: goal{what: "ratio", target: 0.5}},
			{name: name + "-no-prefetch", unit: "s"},
			{name: name + "-disconnected", unit: "s"},
		},
		setUp: func(l *lab.Lab, _ want) (func() ([]sample, error), error) {
			w, err := newWalk(l, c, http2)
			if err != nil {
				return nil, err
			}
			return w.once, nil
		},
	}
}

// walk is one command on its ways through a closure.
type walk struct {
	*lab.Lab
	command  command
	root     string
	keys     []string
	upstream *lab.Far
	version  lab.Version
	runs     int
}

func newWalk(l *lab.Lab, c command, http2 bool) (*walk, error) {
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
	return &walk{
		Lab: l, command: c, root: made.Root().StorePath.String(), keys: []string{key.Public().String()},
		upstream: l.Far(dir, walkRTT, http2), version: versions[len(versions)-1],
	}, nil
}

// once times a walk on the upstream, and through a daemon: with and without
// looking ahead, and by one that the upstream has left since.
func (w *walk) once() ([]sample, error) {
	w.runs++
	direct, err := w.time("direct", w.upstream.URL)
	if err != nil {
		return nil, err
	}
	ahead, err := w.through("ahead", false, false)
	if err != nil {
		return nil, err
	}
	unaided, err := w.through("unaided", true, false)
	if err != nil {
		return nil, err
	}
	disconnected, err := w.through("disconnected", false, true)
	if err != nil {
		return nil, err
	}
	return []sample{against(ahead, direct), against(unaided, direct), against(disconnected, direct)}, nil
}

// through times a walk through a daemon that has just been started and has
// greeted the upstream; with drop set, the upstream has ended that connection.
func (w *walk) through(name string, noPrefetch, drop bool) (float64, error) {
	d := w.Daemon(fmt.Sprintf("%s-%d", name, w.runs), lab.DaemonConfig{
		Profile: "off", Upstreams: []string{w.upstream.URL}, Keys: w.keys, NoPrefetch: noPrefetch,
	})
	w.WaitFor(name+" to greet the upstream", func() bool { return d.Status().Upstreams[0].State != "unknown" })
	if drop {
		w.upstream.Drop()
	}
	seconds, err := w.time(name, d.URL())
	if err != nil {
		return 0, err
	}
	return seconds, d.Stop()
}

// time runs the command with a Nix that knows nothing yet, and returns the
// seconds it took.
func (w *walk) time(name, url string) (float64, error) {
	store := w.Nix(fmt.Sprintf("nix-%s-%d", name, w.runs), lab.NixConfig{Substituters: []string{url}, TrustedKeys: w.keys, Bin: w.version.Bin})
	store.Init()
	args, complete := w.command(url, w.root)
	began := time.Now()
	stdout, stderr, err := store.RunBoth(w.Context(), args[0], args[1:]...)
	took := time.Since(began)
	if err == nil && !complete(stdout, stderr) {
		err = fmt.Errorf("%s has not seen all of the closure: %s", strings.Join(args, " "), stderr)
	}
	return took.Seconds(), err
}
