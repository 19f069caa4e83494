package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// lanPeers are about a NAR that a neighbour has: ten times as near as the
// upstream, or spared the upstream's compression.
func lanPeers(s scale) []measurement {
	return []measurement{{
		lines: []line{{name: "lan-peer", unit: "MB/s", goal: goal{what: "ratio", target: 5, atLeast: true}}},
		setUp: func(l *lab.Lab, _ want) (func() ([]sample, error), error) { return setUpNeighbour(l, s.mib(256)) },
	}, {
		lines: []line{{name: "lan-peer-xz", unit: "s", goal: goal{what: "ratio", target: 0.2}}},
		setUp: func(l *lab.Lab, _ want) (func() ([]sample, error), error) { return setUpCompressed(l, s.mib(192)) },
	}}
}

func setUpNeighbour(l *lab.Lab, size int64) (func() ([]sample, error), error) {
	c, err := newCargo(l, size, false)
	if err != nil {
		return nil, err
	}
	net := l.Net()
	far := net.Host("11.0.0.1", lab.Line{Rate: 100 * mbit, Delay: oneWay})
	home, near := net.Host("192.168.5.1", lab.Line{Rate: gbit}), net.Host("192.168.5.2", lab.Line{Rate: gbit})
	upstream := far.Nginx("nginx", 80, c.cache)
	neighbour := c.provider("neighbour", near, nil)
	consumer := c.consumer("consumer", home, neighbour, upstream)
	neighbour.WaitAnnounced(1)
	serveIperf([]*lab.Host{near})
	return func() ([]sample, error) {
		top, err := ceiling(l, []*lab.Host{near}, home)
		if err != nil {
			return nil, err
		}
		alone, err := c.download(home, upstream+"/"+c.record.URL)
		if err != nil {
			return nil, err
		}
		ours, err := consumer.rate()
		return []sample{{value: ours, baseline: alone.rate(), ceiling: top}}, err
	}, nil
}

// setUpCompressed compares with an upstream on loopback that serves xz.
func setUpCompressed(l *lab.Lab, size int64) (func() ([]sample, error), error) {
	c, err := newCargo(l, size, true)
	if err != nil {
		return nil, err
	}
	dir, err := compress(l, c.cache, []*narinfo.Info{c.record})
	if err != nil {
		return nil, err
	}
	upstream := l.Nginx("nginx", dir)
	neighbour := c.provider("neighbour", nil, nil)
	consumer := c.consumer("consumer", nil, neighbour, upstream)
	neighbour.WaitAnnounced(1)
	nix := newClient(l, nil, c.keys)
	return func() ([]sample, error) {
		alone, err := nix.copy(upstream, c.record.StorePath)
		if err != nil {
			return nil, err
		}
		ours, err := nix.copy(consumer.URL(), c.record.StorePath)
		return []sample{against(ours, alone)}, err
	}, nil
}

// compress makes a folder that is a binary cache with these records of another
// one, the NARs compressed as cache.nixos.org has them.
func compress(l *lab.Lab, cache string, records []*narinfo.Info) (dir string, err error) {
	dir = l.Dir("compressed")
	if err := os.Mkdir(filepath.Join(dir, "nar"), 0o755); err != nil {
		return "", err
	}
	text := []byte("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n")
	if err := os.WriteFile(filepath.Join(dir, "nix-cache-info"), text, 0o644); err != nil {
		return "", err
	}
	var all errgroup.Group
	all.SetLimit(runtime.NumCPU())
	for _, record := range records {
		all.Go(func() error {
			name, from := record.StorePath.HashPart().String(), filepath.Join(cache, record.URL)
			info := *record
			info.URL, info.Compression, info.FileHash, info.FileSize = "nar/"+name+".nar.xz", "xz", "", 0
			// Not as hard as that cache does, which would take minutes. It takes as long
			// to be undone.
			if err := compressFile(l, from, filepath.Join(dir, info.URL)); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, name+".narinfo"), info.Bytes(), 0o644)
		})
	}
	return dir, all.Wait()
}

func compressFile(l *lab.Lab, from, to string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(l.Within(patience), "xz", "--stdout", "--threads=0", "-1", from)
	cmd.Stdout = f
	if err := errors.Join(cmd.Run(), f.Close()); err != nil {
		return fmt.Errorf("xz: %w", err)
	}
	return nil
}

// upstreamOnly is about what a daemon costs where no peer has anything. Nix and
// the daemon start with nothing in each run.
func upstreamOnly(s scale) []measurement {
	return []measurement{{
		lines: []line{{name: "upstream-only", unit: "s", goal: goal{what: "ratio", target: 1.05, slack: 0.05}}},
		setUp: func(l *lab.Lab, _ want) (func() ([]sample, error), error) { return setUpUpstream(l, s.mib(64)) },
	}}
}

func setUpUpstream(l *lab.Lab, size int64) (func() ([]sample, error), error) {
	key, err := narinfo.GenerateSecretKey("bench-1")
	if err != nil {
		return nil, err
	}
	cache, keys := l.Dir("cache"), []string{key.Public().String()}
	made, err := closure.Generate(l.Within(patience), cache, closure.Config{
		Paths: 50, Depth: 10, Seed: 1, Key: key, MaxFileSize: 1 << 20, LargeSize: size, LargeText: true,
	})
	if err != nil {
		return nil, err
	}
	dir, err := compress(l, cache, made.Records)
	if err != nil {
		return nil, err
	}
	net, line := l.Net(), lab.Line{Rate: 100 * mbit, Delay: oneWay}
	home := net.Host("11.0.1.1", lab.Line{Rate: gbit})
	upstream := net.Host("11.0.0.1", line).Nginx("nginx", 80, dir)
	peer := l.Daemon("peer", lab.DaemonConfig{Host: net.Host("11.0.0.2", line), Keys: keys})
	nix, root := newClient(l, home, keys), made.Root().StorePath
	return func() ([]sample, error) {
		direct, err := nix.realise(upstream, root)
		if err != nil {
			return nil, err
		}
		d := l.Daemon(fmt.Sprintf("daemon-%d", nix.runs), lab.DaemonConfig{Host: home, Bootstrap: peer, Upstreams: []string{upstream}, Keys: keys})
		through, err := nix.realise(d.URL(), root)
		if err != nil {
			return nil, err
		}
		return []sample{against(through, direct)}, d.Stop()
	}, nil
}
