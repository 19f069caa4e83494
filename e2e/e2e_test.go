// Package e2e tests nar-p2p as its users see it: real daemons, real Nix, real
// sockets. What the tests stand on is package lab.
package e2e

import (
	"os"
	"slices"
	"testing"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

func TestMain(m *testing.M) {
	if task := os.Getenv(crowdVariable); task != "" {
		os.Exit(runCrowd(task))
	}
	os.Exit(lab.Main(m))
}

// team is a network with one provider, of a closure that a team's key has
// signed and that is on no public cache.
type team struct {
	*lab.Lab
	key     narinfo.SecretKey
	closure *closure.Closure
	// producer is the provider's Nix, upstream a cache made by it.
	producer  *lab.Nix
	upstream  *lab.Upstream
	bootstrap *lab.Daemon
	provider  *lab.Daemon
}

// newTeam makes a closure of paths store paths, of which one has a file of
// largeSize bytes more, and a provider that has announced it.
func newTeam(t *testing.T, paths int, largeSize int64) *team {
	t.Helper()
	m := &team{Lab: lab.New(t)}
	var err error
	if m.key, err = narinfo.GenerateSecretKey("team-1"); err != nil {
		t.Fatal(err)
	}
	generated := m.Dir("generated")
	m.closure, err = closure.Generate(t.Context(), generated, closure.Config{Paths: paths, Seed: 1, Key: m.key, LargeSize: largeSize})
	if err != nil {
		t.Fatal(err)
	}
	m.producer = m.Nix("producer", lab.NixConfig{TrustedKeys: m.keys()})
	m.producer.Import(generated, m.root())

	dir := m.Dir("upstream")
	m.producer.Export(dir, m.root())
	m.upstream = m.Upstream(dir)

	m.bootstrap = m.Daemon("bootstrap", lab.DaemonConfig{})
	m.provider = m.Daemon("provider", lab.DaemonConfig{
		Bootstrap: m.bootstrap, StoreRoot: m.producer.Root, Keys: m.keys(),
	})
	m.provider.WaitAnnounced(paths)
	return m
}

func (m *team) root() nix.StorePath { return m.closure.Root().StorePath }

func (m *team) keys() []string { return []string{m.key.Public().String()} }

// member starts a daemon that serves from store, whose only substituter it is.
func (m *team) member(name string) (*lab.Daemon, *lab.Nix) {
	store := m.Nix(name, lab.NixConfig{TrustedKeys: m.keys()})
	store.Init()
	d := m.Daemon(name, lab.DaemonConfig{
		Bootstrap: m.bootstrap, StoreRoot: store.Root, Upstreams: []string{m.upstream.URL}, Keys: m.keys(),
	})
	store.Use(d.URL())
	return d, store
}

// consumer starts a daemon that knows the bootstrap peer alone, and an empty
// store whose only substituter it is.
func (m *team) consumer() (*lab.Daemon, *lab.Nix) {
	d := m.Daemon("consumer", lab.DaemonConfig{
		Bootstrap: m.bootstrap, Upstreams: []string{m.upstream.URL}, Keys: m.keys(),
	})
	return d, m.Nix("consumer", lab.NixConfig{Substituters: []string{d.URL()}, TrustedKeys: m.keys()})
}

// narBytes is the size of all NARs of the closure.
func (m *team) narBytes() (n int64) {
	for _, r := range m.closure.Records {
		n += r.NARSize
	}
	return n
}

// checkSubstituted checks with Nix that the whole closure has arrived and is
// what was signed.
func (m *team) checkSubstituted(t *testing.T, store *lab.Nix) {
	t.Helper()
	store.Verify(m.root())
	got, want := store.Closure(m.root()), m.producer.Closure(m.root())
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("closure in the store = %v, want %v", got, want)
	}
}
