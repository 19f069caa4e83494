package main

import (
	"fmt"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// client is the newest Nix that there is, in each run with an empty store and
// without caches.
type client struct {
	*lab.Lab
	host    *lab.Host
	keys    []string
	version lab.Version
	runs    int
}

func newClient(l *lab.Lab, host *lab.Host, keys []string) *client {
	versions := l.Versions()
	return &client{Lab: l, host: host, keys: keys, version: versions[len(versions)-1]}
}

// copy has Nix copy a path from a substituter, and returns the seconds it took.
func (c *client) copy(url string, path nix.StorePath) (float64, error) {
	return c.run(url, path, "nix", "copy", "--from", url)
}

// realise has Nix substitute a path and everything that it refers to, and
// returns the seconds it took.
func (c *client) realise(url string, path nix.StorePath) (float64, error) {
	return c.run(url, path, "nix-store", "--realise")
}

func (c *client) run(url string, path nix.StorePath, args ...string) (float64, error) {
	c.runs++
	store := c.Nix(fmt.Sprintf("nix-%d", c.runs), lab.NixConfig{
		Substituters: []string{url}, TrustedKeys: c.keys, Bin: c.version.Bin, Host: c.host,
	})
	defer store.Remove()
	store.Init()
	began := time.Now()
	_, err := store.Run(c.Within(patience), args[0], append(args[1:], path.String())...)
	return time.Since(began).Seconds(), err
}
