// Package soak tests that a node which runs for long takes no more than at its
// beginning, while peers come and go, its store changes, and garbage is collected.
// `make soak` does so for half an hour, `make test` for some rounds.
package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

const (
	// rounds are made at least, of which the first warmUp do not count: caches fill,
	// and lines are opened that stay.
	rounds = 18
	warmUp = 4
	// compared is how many of the first and of the last rounds are compared: what
	// comes and goes is at its least in one of the last, and at its most in one of the
	// first. So no moment decides, and not how busy the machine is, but what is taken
	// in every round and never given back.
	compared = 4
	// closures are used by turns, and paths is the size of each.
	closures = 3
	paths    = 8
)

// soakTime is for how long there are rounds, at least; "" is for none but the rounds.
var soakTime = os.Getenv("TEST_SOAK_TIME")

// Limits on how much more a late round may have than an early one. In the shortest run
// ten rounds lie between them, so one thing lost in each round shows.
const (
	//
	// moreGoroutines is those of two requests or lines that are just ending, three each.
	moreGoroutines = 6
	// moreDescriptors allows for two tables of the database.
	moreDescriptors = 4
	// moreHeap is what the caches of so few paths may come to, in bytes.
	moreHeap = 12 << 20
	// moreDisk is a log of the database and the table that becomes of it, in bytes.
	moreDisk = 32 << 20
	// moreMemory is a heap of moreHeap with as much again for what is not yet collected,
	// and as much of files that are mapped as moreDisk, in bytes: the kernel counts all
	// of it.
	moreMemory = 2*moreHeap + moreDisk
)

// taken is what a node takes after a round.
type taken struct {
	goroutines, descriptors int
	heap, memory, disk      int64
	// own are the goroutines of the test program, in which the peers run.
	own int
}

type soak struct {
	*lab.Lab
	t        *testing.T
	closures []*closure.Closure
	node     *lab.Daemon
	store    *lab.Nix
	pprof    *http.Client
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	s := &soak{Lab: lab.New(t), t: t}
	key, err := narinfo.GenerateSecretKey("soak-1")
	if err != nil {
		t.Fatal(err)
	}
	cache := s.Dir("cache")
	for i := range closures {
		c, err := closure.Generate(t.Context(), cache, closure.Config{Paths: paths, Seed: uint64(i), Key: key, LargeSize: 1 << 20, Compression: "zstd"})
		if err != nil {
			t.Fatal(err)
		}
		s.closures = append(s.closures, c)
	}
	keys := []string{key.Public().String()}
	s.store = s.Nix("nix", lab.NixConfig{TrustedKeys: keys})
	s.store.Init()
	s.node = s.Daemon("node", lab.DaemonConfig{StoreRoot: s.store.Root, Upstreams: []string{s.Upstream(cache).URL}, Keys: keys})
	s.store.Use(s.node.URL())
	s.pprof = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.node.Socket())
		},
	}}
	return s
}

// round substitutes a closure, has a peer come for a part of it, and collects it.
func (s *soak) round(i int) {
	s.t.Helper()
	c := s.closures[i%closures]
	if err := s.store.Realise(c.Root().StorePath); err != nil {
		s.t.Fatal(err)
	}
	s.node.WaitShared(paths)
	s.visit(c.Records[0])
	s.store.MustRun("nix-store", "--gc")
	s.WaitFor("the node to share nothing", func() bool { return s.node.Status().Store.Shareable == 0 })
}

// settled returns what is taken once nothing goes on.
func (s *soak) settled() (now taken) {
	s.t.Helper()
	s.WaitFor("the peer to be gone", func() bool { return s.node.Status().P2P.Connected == 0 })
	s.collect()
	m := s.node.Metrics()
	return taken{
		goroutines: int(m["go_goroutines"]), descriptors: int(m["process_open_fds"]),
		heap: int64(m["go_memstats_heap_alloc_bytes"]), memory: int64(m["process_resident_memory_bytes"]),
		disk: s.disk(), own: runtime.NumGoroutine(),
	}
}

// collect has the node collect its garbage.
func (s *soak) collect() {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, "http://node/debug/pprof/heap?gc=1", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.pprof.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		err = errors.Join(err, resp.Body.Close())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// disk is what the state takes on the disk, in bytes: files of the database are long,
// and mostly holes.
func (s *soak) disk() (n int64) {
	s.t.Helper()
	err := filepath.WalkDir(s.node.StateDir(), func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // The database has just removed it.
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return nil //nolint:nilerr // The same.
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			n += stat.Blocks * 512
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// A node that has run for long takes no more than it did in the beginning.
func TestNothingGrows(t *testing.T) {
	s := newSoak(t)
	lasts := time.Duration(0)
	if soakTime != "" {
		var err error
		if lasts, err = time.ParseDuration(soakTime); err != nil {
			t.Fatal(err)
		}
	}
	var all []taken
	for i, began := 0, time.Now(); i < rounds || time.Since(began) < lasts; i++ {
		s.round(i)
		all = append(all, s.settled())
	}
	early, late := all[warmUp:warmUp+compared], all[len(all)-compared:]
	for _, x := range []struct {
		what string
		of   func(taken) int64
		more int64
	}{
		{"goroutines", func(n taken) int64 { return int64(n.goroutines) }, moreGoroutines},
		{"descriptors", func(n taken) int64 { return int64(n.descriptors) }, moreDescriptors},
		{"bytes of live memory", func(n taken) int64 { return n.heap }, moreHeap},
		{"bytes of resident memory", func(n taken) int64 { return n.memory }, moreMemory},
		{"bytes on the disk", func(n taken) int64 { return n.disk }, moreDisk},
		{"goroutines of the peers' process", func(n taken) int64 { return int64(n.own) }, moreGoroutines},
	} {
		first, last := slices.Max(each(early, x.of)), slices.Min(each(late, x.of))
		text := fmt.Sprintf("%s: %d at the most early on, %d at the least in the end, after %d rounds", x.what, first, last, len(all))
		if last > first+x.more {
			t.Errorf("%s\n%+v", text, all)
		} else {
			t.Log(text)
		}
	}
}

func each(all []taken, of func(taken) int64) []int64 {
	values := make([]int64, len(all))
	for i, n := range all {
		values[i] = of(n)
	}
	return values
}
