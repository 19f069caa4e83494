// Package faults tests that builds go on while something fails.
//
// Upstreams do so in every way of lab.Fault, with every version of Nix and with each
// kind of help at hand; `make nix-faults` writes docs/nix-faults.md, which shows what
// each version did. All else that may fail, peers, the network, the disk, the store
// and the machine, is in survived; `make faults` writes docs/reliability.md too.
package faults

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// atOnce is how many cases run at the same time. Most of them wait.
	atOnce = "6"
	// paths is the size of the closure.
	paths = 12
	// largeSize is more than the daemon holds back until it is verified, in
	// bytes. So Nix has the beginning of such a NAR when its source breaks off.
	largeSize = 17 << 20
	// midwayAfter is the number of requests that an upstream answers well before
	// it begins to fail midway.
	midwayAfter = 4
)

func TestMain(m *testing.M) {
	// The command line still has the last word.
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	os.Exit(lab.Main(m))
}

// help is what there is beside the faulty upstream.
type help string

const (
	secondUpstream    help = "second upstream"
	secondSubstituter help = "second substituter"
	peer              help = "peer"
	// noDaemon is Nix without nar-p2p, with the faulty cache and a healthy one.
	// It is there to compare with, and only run for the table.
	noDaemon help = "no daemon"
)

// scope is which requests meet the fault.
type scope string

const (
	everything scope = "everything"
	// midway is everything, after the first requests.
	midway   scope = "everything, midway"
	narinfos scope = "narinfos"
	nars     scope = "NARs"
)

// experiment is one case.
type experiment struct {
	version lab.Version
	help    help
	scope   scope
	fault   lab.Fault
}

func (x experiment) String() string {
	return fmt.Sprintf("%s/%s/%s %s", x.version.Name, x.help, x.fault, x.scope)
}

// deadline is the daemon's, for a narinfo. For the table it is the default.
// Else it is long where help comes within it, however slow the machine is, and
// short where Nix turns to another when it has passed.
func (x experiment) deadline() time.Duration {
	switch {
	case tableFile != "":
		return 5 * time.Second
	case x.help == secondSubstituter:
		return 4 * time.Second
	}
	return 20 * time.Second
}

// withEach is how many of the faults are met with each version of Nix also where not all
// is run. The daemon sees a difference between the others and those, and Nix none.
const withEach = 16

// experiments lists those of one of the versions: as a rule those that differ most,
// and all of them where the table is written and in the full run.
func experiments(versions []lab.Version, v int) (list []experiment) {
	all := tableFile != "" || lab.Scale(0, 1) == 1
	scopes := map[help][]scope{
		secondUpstream:    {everything, nars},
		secondSubstituter: {everything, nars},
		peer:              {everything, midway},
	}
	if all {
		// Not midway with two upstreams: the daemon may have turned to the quicker.
		scopes[secondUpstream] = []scope{everything, narinfos, nars}
		scopes[secondSubstituter] = []scope{everything, midway, narinfos, nars}
	}
	if tableFile != "" {
		scopes[noDaemon] = []scope{everything, nars}
	}
	for _, help := range []help{noDaemon, secondUpstream, secondSubstituter, peer} {
		for _, scope := range scopes[help] {
			for i, fault := range lab.Faults() {
				if i >= withEach && i%len(versions) != v && !all {
					continue
				}
				if fault.Reachable() || scope == everything || scope == midway {
					list = append(list, experiment{versions[v], help, scope, fault})
				}
			}
		}
	}
	return list
}

// world is what all experiments share: closures that are in an upstream's
// folder, and that a peer provides.
type world struct {
	*lab.Lab
	// large has a NAR of largeSize among its own, and is there for the faults
	// that break off NARs.
	small, large *closure.Closure
	cache        string
	keys         []string
	bootstrap    *lab.Daemon
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Lab: lab.New(t)}
	key, err := narinfo.GenerateSecretKey("faults-1")
	if err != nil {
		t.Fatal(err)
	}
	w.keys = []string{key.Public().String()}
	w.cache = w.Dir("cache")
	generate := func(seed uint64, largeSize int64) *closure.Closure {
		c, err := closure.Generate(t.Context(), w.cache, closure.Config{
			Paths: paths, Seed: seed, Key: key, LargeSize: largeSize, Compression: "zstd",
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	w.small, w.large = generate(1, 0), generate(2, largeSize)
	w.bootstrap = w.Daemon("bootstrap", lab.DaemonConfig{})
	provider := w.Daemon("provider", lab.DaemonConfig{Bootstrap: w.bootstrap, Cache: w.cache, Keys: w.keys})
	provider.WaitAnnounced(2 * paths)
	return w
}

// scene is the machines of one experiment.
type scene struct {
	experiment
	*world
	closure         *closure.Closure
	faulty, healthy *lab.Upstream
	nix             *lab.Nix
	// daemon is nil without one; the tap stands before it.
	daemon *lab.Daemon
	tap    *lab.Tap
}

// scene makes the machines of an experiment.
func (w *world) scene(t *testing.T, x experiment) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{experiment: x, world: w, closure: w.large, faulty: l.Upstream(w.cache), healthy: l.Upstream(w.cache)}
	if x.scope == everything || x.scope == narinfos {
		s.closure = w.small
	}
	cfg := lab.DaemonConfig{
		Profile: "off", Upstreams: []string{s.faulty.URL}, Keys: w.keys,
		Flags: []string{"--substituter-deadline=" + x.deadline().String()},
	}
	substituters := []string{s.healthy.URL}
	switch x.help {
	case noDaemon:
		substituters = []string{s.faulty.URL, s.healthy.URL}
	case secondUpstream:
		cfg.Upstreams = append(cfg.Upstreams, s.healthy.URL)
		substituters = nil
	case secondSubstituter:
	case peer:
		cfg.Profile, cfg.Bootstrap = "private", w.bootstrap
		substituters = nil
	}
	if x.help != noDaemon {
		s.daemon = l.Daemon("consumer", cfg)
		s.tap = l.Tap(s.daemon.URL())
		substituters = append([]string{s.tap.URL}, substituters...)
	}
	s.nix = l.Nix("nix", lab.NixConfig{Substituters: substituters, TrustedKeys: w.keys, Bin: x.version.Bin})
	switch x.scope {
	case everything:
		s.faulty.Fail(x.fault, lab.Everything)
	case midway:
		s.faulty.FailAfter(midwayAfter, x.fault, lab.Everything)
	case narinfos:
		s.faulty.Fail(x.fault, lab.Narinfo)
	case nars:
		s.faulty.Fail(x.fault, lab.NAR)
	}
	return s
}

// target is what is substituted: the closure as a rule. Where NARs hang and
// nothing tells the daemon beforehand, nor has it another source, it waits for
// each; then one is enough, the large one.
func (s *scene) target() nix.StorePath {
	if s.onlyLarge() {
		return s.closure.Records[0].StorePath
	}
	return s.closure.Root().StorePath
}

// narBytes is the size of all NARs of the closure.
func (s *scene) narBytes() (n uint64) {
	for _, r := range s.closure.Records {
		n += uint64(r.NARSize)
	}
	return n
}

func (x experiment) onlyLarge() bool {
	return x.help == secondSubstituter && x.scope == nars && x.fault.Hangs()
}

// outcome is what came of an experiment.
type outcome struct {
	took time.Duration
	// err is Nix's.
	err error
	// failed tells that the upstream's fault was met at all.
	failed bool
	// givers of NARs.
	faulty, healthy, peer bool
}

// substitute lets Nix substitute the closure, for patience at most.
func (s *scene) substitute(t *testing.T, patience time.Duration) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	_, err := s.nix.Run(ctx, "nix-store", "--realise", s.target().String())
	o := outcome{
		took: time.Since(began), err: err, failed: !s.fault.Reachable() || s.faulty.Failed(lab.Everything) > 0,
		faulty: s.faulty.Served(lab.NAR) > 0, healthy: s.healthy.Served(lab.NAR) > 0,
	}
	if s.fault == lab.Slow && s.faulty.Failed(lab.NAR) > 0 {
		o.faulty = true
	}
	if s.daemon != nil {
		o.peer = s.daemon.Status().NARBytes["peer"] > 0
	}
	return o
}

func TestBuildsGoOnWhileUpstreamsFail(t *testing.T) {
	w := newWorld(t)
	results := newTable(w.Versions())
	// The group ends when the last of its parallel tests has.
	t.Run("all", func(t *testing.T) {
		for v := range results.versions {
			for _, x := range experiments(results.versions, v) {
				t.Run(x.String(), func(t *testing.T) {
					t.Parallel()
					s := w.scene(t, x)
					if x.help == noDaemon {
						results.add(x, s.substitute(t, lookOn))
						return
					}
					o := s.substitute(t, lab.Patience)
					t.Logf("%v: %s, failed %d narinfos", x, o, s.faulty.Failed(lab.Narinfo))
					results.add(x, o)
					s.check(t, o)
				})
			}
		}
	})
	results.checkFailed(t)
	if tableFile == "" || t.Failed() {
		return
	}
	if err := os.WriteFile(tableFile, results.document(), 0o644); err != nil {
		t.Error(err)
	}
}
