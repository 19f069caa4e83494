package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/internal/doctor"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// bound is how long Nix may take in any trial: what the daemon itself waits at
// most for a source that has nothing to say, 10 s and what follows, and the rest
// for a machine that does everything at once. Nix alone would wait for 300 s.
const bound = time.Minute

// fault is one that is not an upstream's: of peers, of the way to them, of the
// disk, of the store, of the machine.
type fault struct {
	// area and name say what fails.
	area, name string
	// meet has Nix substitute while it does, checks what is to be checked, and
	// says in words for the table what the node has done.
	meet func(t *testing.T, c *trial) string
	// full says that it is met in the full run only: it differs from another in a
	// number.
	full bool
}

// areas in the order of the document.
const (
	ofPeers   = "A peer"
	ofTheWay  = "The network"
	ofDisk    = "The state folder"
	ofStore   = "The Nix store that peers fetch from"
	ofMachine = "The machine"
)

// survived lists all faults.
func survived() (all []fault) {
	for _, some := range [][]fault{lies(), stalls(), vanishings(), outages(), diskFaults(), storeFaults(), machineFaults()} {
		all = append(all, some...)
	}
	return all
}

// ground is what all trials share.
type ground struct {
	*lab.Lab
	key  narinfo.SecretKey
	keys []string
	// cache has the NARs of single, whose one path has a NAR of largeSize, and of
	// small, a closure of few small paths.
	cache         string
	single, small *closure.Closure
	// provider has both.
	provider *lab.Daemon
}

// smallPaths is the size of the small closure.
const smallPaths = 6

func newGround(t *testing.T) *ground {
	t.Helper()
	g := &ground{Lab: lab.New(t)}
	var err error
	if g.key, err = narinfo.GenerateSecretKey("faults-1"); err != nil {
		t.Fatal(err)
	}
	g.keys = []string{g.key.Public().String()}
	g.cache = g.Dir("cache")
	generate := func(cfg closure.Config) *closure.Closure {
		cfg.Key = g.key
		c, err := closure.Generate(t.Context(), g.cache, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	g.single = generate(closure.Config{Paths: 1, Seed: 11, LargeSize: largeSize})
	g.small = generate(closure.Config{Paths: smallPaths, Seed: 12})
	g.provider = g.Daemon("provider", lab.DaemonConfig{Cache: g.cache, Keys: g.keys})
	g.provider.WaitShared(1 + smallPaths)
	return g
}

// trial is one fault, met by one version of Nix. Its lab is its own.
type trial struct {
	*lab.Lab
	t       *testing.T
	ground  *ground
	version lab.Version
	// upstream has everything that the ground's cache has.
	upstream *lab.Upstream
	// node is the consumer.
	node *lab.Daemon
	took time.Duration
}

// explainAfter is a time after which the log of the test tells what took it.
const explainAfter = 15 * time.Second

// consumer starts a daemon without a store, beside a Nix whose only substituter
// it is. Where cfg names no upstream it has the trial's.
func (c *trial) consumer(cfg lab.DaemonConfig) (*lab.Daemon, *lab.Nix) {
	c.t.Helper()
	if cfg.Upstreams == nil {
		cfg.Upstreams = []string{c.upstream.URL}
	}
	if len(cfg.Keys) == 0 {
		cfg.Keys = c.ground.keys
	}
	d := c.Daemon("consumer", cfg)
	c.node = d
	return d, c.nix("nix", cfg.Host, d.URL())
}

// nix makes an empty store, of the trial's version of Nix.
func (c *trial) nix(name string, host *lab.Host, substituters ...string) *lab.Nix {
	c.t.Helper()
	return c.Nix(name, lab.NixConfig{
		Substituters: substituters, TrustedKeys: c.ground.keys, Bin: c.version.Bin, Host: host,
	})
}

// realise lets Nix substitute a path, which must come to a good end in time.
func (c *trial) realise(n *lab.Nix, path nix.StorePath) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), bound)
	defer cancel()
	began := time.Now()
	_, err := n.Run(ctx, "nix-store", "--realise", path.String())
	took := time.Since(began)
	c.took = max(c.took, took)
	if took > explainAfter && c.node != nil {
		if text, err := c.node.Ctl("explain", path.String()); err == nil {
			c.t.Logf("after %v: %s", took, text)
		}
	}
	if err != nil {
		c.t.Fatalf("the build does not go on: %v", err)
	}
	n.Verify(path)
}

// examine returns all that p2pctl doctor says.
func (c *trial) examine(d *lab.Daemon) (checks []doctor.Check) {
	c.t.Helper()
	// The exit code is one of the findings.
	out, failed := d.Ctl("doctor", "--json")
	if err := json.Unmarshal([]byte(out), &checks); err != nil {
		c.t.Fatalf("doctor: %v, %v", err, failed)
	}
	return checks
}

// get returns a file of a substituter.
func (c *trial) get(d *lab.Daemon, name string) ([]byte, error) {
	req, err := http.NewRequestWithContext(c.Context(), http.MethodGet, d.URL()+"/"+name, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", name, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// doctor returns what p2pctl doctor says of one thing, verdict and finding.
func (c *trial) doctor(d *lab.Daemon, check string) (verdict, finding string) {
	c.t.Helper()
	for _, found := range c.examine(d) {
		if found.Name == check {
			return string(found.Verdict), found.Finding
		}
	}
	c.t.Fatalf("the doctor does not look at %s", check)
	return "", ""
}

// wantDoctor waits until the doctor has this verdict on something.
func (c *trial) wantDoctor(d *lab.Daemon, check, verdict, part string) {
	c.t.Helper()
	c.WaitFor(fmt.Sprintf("the doctor to say %s of %s", verdict, check), func() bool {
		got, finding := c.doctor(d, check)
		return got == verdict && strings.Contains(finding, part)
	})
}

// givers says in words who gave Nix its bytes.
func givers(d *lab.Daemon) string {
	var names []string
	for _, giver := range []struct{ key, name string }{{"peer", "peer"}, {"upstream", "upstream"}} {
		if d.Status().NARBytes[giver.key] > 0 {
			names = append(names, giver.name)
		}
	}
	return strings.Join(names, ", ")
}

// needs reports whether a source gave Nix something.
func needs(t *testing.T, d *lab.Daemon, source string) {
	t.Helper()
	if got := d.Status().NARBytes; got[source] == 0 {
		t.Errorf("NAR bytes came from %v, want some from %s", got, source)
	}
}

// TestNodesSurviveFaults meets each fault once, with one version of Nix after
// the other; and all of them with each where the table is written.
func TestNodesSurviveFaults(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	m := newMatrix(g.Versions())
	t.Run("all", func(t *testing.T) {
		met := 0
		for _, f := range survived() {
			versions := m.versions
			if matrixFile == "" {
				if f.full && lab.Scale(0, 1) == 0 {
					continue
				}
				versions = versions[met%len(versions):][:1]
				met++
			}
			for _, version := range versions {
				t.Run(fmt.Sprintf("%s/%s/%s", f.area, f.name, version.Name), func(t *testing.T) {
					t.Parallel()
					l := lab.New(t)
					c := &trial{Lab: l, t: t, ground: g, version: version, upstream: l.Upstream(g.cache)}
					did := f.meet(t, c)
					t.Logf("%s, %s: %s, %s", f.area, f.name, rounded(c.took), did)
					m.add(f, version, finding{c.took, did})
				})
			}
		}
	})
	if matrixFile == "" || t.Failed() {
		return
	}
	if err := os.WriteFile(matrixFile, m.document(), 0o644); err != nil {
		t.Error(err)
	}
}
