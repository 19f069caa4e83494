package faults

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// machineFaults are those of the machine on which a node runs.
func machineFaults() []fault {
	return []fault{
		{area: ofMachine, name: "has few file descriptors, and clients without end", meet: clientsWithoutEnd},
		{area: ofMachine, name: "has no file descriptors left, and then again", meet: descriptorsExhausted},
		{area: ofMachine, name: "has little memory", meet: littleMemory},
		{area: ofMachine, name: "kills the daemon (SIGKILL) in the middle of 20 substitutions, and starts it again", meet: killedAmongTwenty},
		// What was kept is then of a time to come, or of one long past.
		{area: ofMachine, name: "had its clock ten years ahead before a restart", meet: clockJumped(10)},
		{area: ofMachine, name: "had its clock ten years behind before a restart", meet: clockJumped(-10)},
		{area: ofMachine, name: "has its clock set back by ten years, and right again", meet: clockSet(-10 * year)},
		{area: ofMachine, name: "has its clock set forward by ten years, and right again", meet: clockSet(10 * year)},
	}
}

// fewDescriptors are enough for a node, and not for clients without end.
const fewDescriptors = 192

// Some open connections and say nothing, and others keep those that they are done
// with.
func clientsWithoutEnd(t *testing.T, c *trial) string {
	t.Helper()
	d, store := c.consumer(lab.DaemonConfig{Under: []string{"prlimit", fmt.Sprintf("--nofile=%d:%[1]d", fewDescriptors), "--"}})
	addr := strings.TrimPrefix(d.URL(), "http://")
	for i := range 2 * fewDescriptors {
		conn, err := net.DialTimeout("tcp", addr, lab.Patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if i%2 == 0 {
			if _, err := fmt.Fprintf(conn, "GET /nix-cache-info HTTP/1.1\r\nHost: %s\r\n\r\n", addr); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.realise(store, c.ground.small.Root().StorePath)
	c.wantDoctor(d, "open-files", "warning", "")
	return givers(d) + "; doctor: open-files"
}

// fewLeft are too few to fetch from anywhere, and enough to be asked what is wrong.
const fewLeft = 3

// The limit of a running daemon is put down to what it has open.
func descriptorsExhausted(t *testing.T, c *trial) string {
	t.Helper()
	d, _ := c.consumer(lab.DaemonConfig{})
	var usual unix.Rlimit
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
	if err == nil {
		err = unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, nil, &usual)
	}
	if err != nil {
		t.Fatal(err)
	}
	limit := func(files uint64) {
		if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: usual.Max}, nil); err != nil {
			t.Fatal(err)
		}
	}
	limit(uint64(len(open) + fewLeft))
	// Nix has another substituter, as it should.
	c.realise(c.nix("beside", nil, d.URL(), c.upstream.URL), c.ground.small.Root().StorePath)
	c.wantDoctor(d, "open-files", "warning", "are used")
	limit(usual.Cur)
	c.wantDoctor(d, "open-files", "ok", "")
	c.realise(c.nix("after", nil, d.URL()), c.ground.single.Root().StorePath)
	return "Nix's other substituter, and then " + givers(d) + "; doctor: open-files"
}

// littleMemory gives the daemon a fraction of what it may use by default, and has
// twenty clients ask for large NARs.
func littleMemory(t *testing.T, c *trial) string {
	t.Helper()
	limit := int64(160 << 20)
	if lab.Race() {
		limit *= 5 // What the race detector takes.
	}
	memory := c.MemoryLimit(limit)
	d, _ := c.consumer(lab.DaemonConfig{Under: memory.Under})
	pid := d.PID()
	done, kept := make(chan struct{}), make(chan error, 1)
	go func() { kept <- memory.Keeps(d, done) }()
	c.together(20, func(i int) error {
		n := c.nix(fmt.Sprintf("nix-%d", i), nil, d.URL())
		return c.run(n)
	})
	close(done)
	if err := <-kept; err != nil {
		t.Errorf("memory: %v", err)
	}
	if err := d.Stop(); err != nil {
		t.Errorf("the daemon, process %d, has ended: %v", pid, err)
	}
	d.Start()
	return "upstream"
}

// together calls f as often at once, and reports its errors.
func (c *trial) together(clients int, f func(i int) error) {
	c.t.Helper()
	var all sync.WaitGroup
	errs := make([]error, clients)
	began := time.Now()
	for i := range clients {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	c.took = max(c.took, time.Since(began))
	for i, err := range errs {
		if err != nil {
			c.t.Errorf("client %d: %v", i, err)
		}
	}
}

// run has Nix substitute the single path, as one of many.
func (c *trial) run(n *lab.Nix) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), bound)
	defer cancel()
	path := c.ground.single.Root().StorePath.String()
	if _, err := n.Run(ctx, "nix-store", "--realise", path); err != nil {
		return err
	}
	_, err := n.Run(ctx, "nix", "store", "verify", "--sigs-needed", "1", path)
	return err
}

// gathered is how long the clients have to come together.
const gathered = 8 * time.Second

func killedAmongTwenty(t *testing.T, c *trial) string {
	t.Helper()
	const clients = 20
	record := c.ground.single.Root()
	w := c.Wire(strings.TrimPrefix(c.upstream.URL, "http://"))
	port := c.Port()
	d, _ := c.consumer(lab.DaemonConfig{Upstreams: []string{"http://" + w.Addr}, Flags: []string{"--substituter-listen=" + port}})
	tap := c.Tap(d.URL())
	c.upstream.Hold(lab.NAR)
	stores := make([]*lab.Nix, clients)
	for i := range stores {
		stores[i] = c.Nix(fmt.Sprintf("nix-%d", i), lab.NixConfig{
			Substituters: []string{tap.URL, c.upstream.URL}, TrustedKeys: c.ground.keys, Bin: c.version.Bin,
			Settings: []string{"fallback = true"},
		})
	}
	var killing sync.WaitGroup
	killing.Go(func() {
		until := time.Now().Add(gathered)
		c.WaitFor("the clients to come together", func() bool {
			return len(tap.Exchanges(lab.NAR)) >= clients || time.Now().After(until)
		})
		w.After(record.NARSize/4, lab.Carry, nil) // It is compressed, though not by much.
		c.upstream.Release()
		select {
		case <-w.Tripped():
		case <-t.Context().Done():
			return
		}
		d.Kill()
		d.Start()
	})
	c.together(clients, func(i int) error { return c.run(stores[i]) })
	killing.Wait()
	c.realise(c.nix("after", nil, d.URL()), c.ground.small.Root().StorePath)
	return "the daemon, or Nix's other substituter"
}

// clockJumped lets a daemon start with what it has kept when its clock was wrong by
// some years.
func clockJumped(years int) func(t *testing.T, c *trial) string {
	return func(t *testing.T, c *trial) string {
		t.Helper()
		return c.clockJumped(years)
	}
}

func (c *trial) clockJumped(years int) string {
	t := c.t
	t.Helper()
	d, store := c.consumer(lab.DaemonConfig{Bootstrap: c.ground.provider})
	c.WaitFor("the consumer to speak with the provider", func() bool { return d.Speaks(c.ground.provider) })
	c.realise(store, c.ground.small.Root().StorePath)
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := shift(t, d.StateDir(), years); n == 0 {
		t.Error("nothing with a time was kept: the trial shows nothing")
	}
	asked := len(c.upstream.Requests(".narinfo"))
	d.Start()
	if u := d.Status().Upstreams[0]; !u.Reachable {
		t.Errorf("the upstream is left alone: %+v", u)
	}
	c.WaitFor("the consumer to speak with the provider", func() bool { return d.Speaks(c.ground.provider) })
	n := c.nix("later", nil, d.URL())
	c.realise(n, c.ground.small.Root().StorePath)
	c.realise(n, c.ground.single.Root().StorePath)
	c.WaitFor("records to be revalidated", func() bool { return len(c.upstream.Requests(".narinfo")) > asked+smallPaths })
	return givers(d)
}

// momentText is a time as it is kept.
var momentText = regexp.MustCompile(`"20\d\d-\d\d-\d\dT`)

// datastores are those with times in what they keep.
var datastores = []string{"standing-lab", "peers-lab", "banned"}

// shift moves all times that a stopped daemon has kept by some years, and returns
// how many values had one.
func shift(t *testing.T, stateDir string, years int) (n int) {
	t.Helper()
	db, err := state.Open(stateDir+"/db", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	shifted := func(value []byte) ([]byte, bool) {
		other := momentText.ReplaceAllFunc(value, func(text []byte) []byte {
			year, err := strconv.Atoi(string(text[1:5]))
			if err != nil {
				panic(err) // They are digits.
			}
			return fmt.Appendf(nil, `"%d%s`, year+years, text[5:])
		})
		return other, !bytes.Equal(other, value)
	}
	for _, name := range []string{"narinfo", "upstreams", "conflicts", "fetches", "daemon"} {
		b := db.Bucket(name)
		if err := b.Each(t.Context(), func(key, value []byte) error {
			other, changed := shifted(value)
			if !changed {
				return nil
			}
			n++
			return b.Put(slices.Clone(key), other, 0)
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range datastores {
		store := db.Datastore(name)
		for entry, err := range ds.QueryIter(t.Context(), store, query.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			if other, changed := shifted(entry.Value); changed {
				n++
				if err := store.Put(t.Context(), ds.RawKey(entry.Key), other); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return n
}
