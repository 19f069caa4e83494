package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// patience bounds whatever moves or makes a NAR. It only decides how long a
// broken measurement takes to fail.
const patience = 10 * time.Minute

// cargo is a store path whose NAR is fetched, by daemons and by what they are
// compared with.
type cargo struct {
	*lab.Lab
	record *narinfo.Info
	keys   []string
	// cache is a folder that is a binary cache with the NAR as it is, and store
	// the root of a Nix store.
	cache, store string
}

// newCargo makes a NAR of at least size bytes, that cannot be compressed or is
// text.
func newCargo(l *lab.Lab, size int64, text bool) (*cargo, error) {
	key, err := narinfo.GenerateSecretKey("bench-1")
	if err != nil {
		return nil, err
	}
	c := &cargo{Lab: l, keys: []string{key.Public().String()}, cache: l.Dir("cargo")}
	made, err := closure.Generate(l.Within(patience), c.cache, closure.Config{Paths: 1, Seed: 1, Key: key, LargeSize: size, LargeText: text})
	if err != nil {
		return nil, err
	}
	c.record = made.Root()
	store := l.Nix("store", lab.NixConfig{TrustedKeys: c.keys})
	store.Import(c.cache, c.record.StorePath)
	c.store = store.Root
	return c, nil
}

// file is the NAR, in a folder that holds nothing else.
func (c *cargo) file() string { return filepath.Join(c.cache, filepath.FromSlash(c.record.URL)) }

// mb is the NAR's size in units of a million bytes.
func (c *cargo) mb() float64 { return float64(c.record.NARSize) / 1e6 }

// provider starts a daemon that has the cargo in its store, and waits until it
// shares it.
func (c *cargo) provider(name string, host *lab.Host, bootstrap *lab.Daemon) *lab.Daemon {
	d := c.Daemon(name, lab.DaemonConfig{Host: host, Bootstrap: bootstrap, StoreRoot: c.store, Keys: c.keys})
	d.WaitShared(1)
	return d
}

// consumer starts a daemon that has nothing.
func (c *cargo) consumer(name string, host *lab.Host, bootstrap *lab.Daemon, upstreams ...string) *daemon {
	return &daemon{cargo: c, host: host, Daemon: c.Daemon(name, lab.DaemonConfig{
		Host: host, Bootstrap: bootstrap, Upstreams: upstreams, Keys: c.keys,
	})}
}

// daemon is one that fetches.
type daemon struct {
	*lab.Daemon
	*cargo
	host *lab.Host
}

// fetch fetches the cargo's NAR as Nix would, that is after its narinfo.
func (d *daemon) fetch() (download, error) {
	var text bytes.Buffer
	cmd := d.host.Command(d.Context(), "curl", "-sSf", d.URL()+"/"+d.record.StorePath.HashPart().String()+".narinfo")
	cmd.Stdout = &text
	if err := cmd.Run(); err != nil {
		return download{}, fmt.Errorf("the narinfo: %w", err)
	}
	info, err := narinfo.Parse(text.Bytes())
	if err != nil {
		return download{}, err
	}
	return d.download(d.host, d.URL()+"/"+info.URL)
}

// rate fetches the NAR and returns how many MB/s came.
func (d *daemon) rate() (float64, error) {
	got, err := d.fetch()
	return got.rate(), err
}

// download is what it was like to fetch the NAR.
type download struct {
	mb float64
	// first and total are the seconds until the first byte and until the last.
	first, total float64
}

func (d download) rate() float64 { return d.mb / d.total }

// download fetches the NAR from url on a host, and throws it away.
func (c *cargo) download(host *lab.Host, url string) (download, error) {
	const report = "%{time_starttransfer} %{time_total} %{size_download}"
	cmd := host.Command(c.Within(patience), "curl", "-sSf", "--output", "/dev/null", "--write-out", report, url)
	out, err := cmd.Output()
	if err != nil {
		return download{}, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	d := download{mb: c.mb()}
	var size int64
	if _, err := fmt.Sscan(string(out), &d.first, &d.total, &size); err != nil {
		return d, fmt.Errorf("curl reports %q: %w", out, err)
	}
	if size != c.record.NARSize {
		return d, errors.New("the NAR came in part")
	}
	return d, nil
}

// served returns the URL of the NAR as nginx serves it on a host.
func (c *cargo) served(name string, host *lab.Host) string {
	dir := filepath.Dir(c.file())
	url := ""
	if host == nil {
		url = c.Nginx(name, dir)
	} else {
		url = host.Nginx(name, 80, dir)
	}
	return url + "/" + filepath.Base(c.file())
}
