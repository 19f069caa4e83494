package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// diskSize is more than the database must have left to be written to, in bytes, and
// little enough for several at once in memory.
const diskSize = 112 << 20

// diskLow is too little for that, in bytes.
const diskLow = 48 << 20

// diskFaults are those of the folder in which a node keeps its state.
func diskFaults() []fault {
	damage := func(name string, spoil func(t *testing.T, table string)) fault {
		return fault{area: ofDisk, name: name, meet: func(t *testing.T, c *trial) string {
			t.Helper()
			d, store := c.consumer(lab.DaemonConfig{})
			c.realise(store, c.ground.small.Root().StorePath)
			if err := d.Stop(); err != nil {
				t.Fatal(err)
			}
			tables, err := filepath.Glob(filepath.Join(d.StateDir(), "db", "*.sst"))
			if err != nil || len(tables) == 0 {
				t.Fatalf("no table of the database: %v", err)
			}
			spoil(t, tables[0])
			d.Start()
			c.wantDoctor(d, "state", "warning", "damaged")
			store.Use(d.URL())
			c.realise(store, c.ground.single.Root().StorePath)
			c.keeps(d)
			return "begins a new database; doctor: state"
		}}
	}
	return []fault{
		{area: ofDisk, name: "is full, while it runs", meet: diskFills},
		{area: ofDisk, name: "is full, when it starts", meet: diskIsFull},
		damage("a table of the database is cut", func(t *testing.T, table string) {
			t.Helper()
			info, err := os.Stat(table)
			if err == nil {
				err = os.Truncate(table, info.Size()/2)
			}
			if err != nil {
				t.Fatal(err)
			}
		}),
		damage("a bit of the database flips", func(t *testing.T, table string) {
			t.Helper()
			data, err := os.ReadFile(table)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(table, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}),
		damage("a file of the database is deleted", func(t *testing.T, table string) {
			t.Helper()
			if err := os.Remove(table); err != nil {
				t.Fatal(err)
			}
		}),
		{area: ofDisk, name: "is deleted, while it runs", meet: stateDeleted},
		{area: ofDisk, name: "is locked by another process", meet: stateLocked},
	}
}

// keeps checks that what the daemon has learned is there after a restart: records,
// which it has nowhere else then.
func (c *trial) keeps(d *lab.Daemon) {
	c.t.Helper()
	if err := d.Stop(); err != nil {
		c.t.Fatal(err)
	}
	c.upstream.Fail(lab.Refused, lab.Everything)
	d.Start()
	part := c.ground.single.Root().StorePath.HashPart()
	text, err := c.get(d, part.String()+".narinfo")
	if err != nil {
		c.t.Fatalf("what was learned is forgotten: %v", err)
	}
	if _, err := narinfo.Parse(text); err != nil {
		c.t.Fatal(err)
	}
}

func diskFills(t *testing.T, c *trial) string {
	t.Helper()
	disk := c.Disk("daemon-consumer/state", diskSize)
	d, store := c.consumer(lab.DaemonConfig{})
	disk.Fill(diskLow)
	c.wantDoctor(d, "state", "warning", "left")
	disk.Fill(0)
	c.realise(store, c.ground.small.Root().StorePath)
	if verdict, finding := c.doctor(d, "disk"); verdict != "failed" {
		t.Errorf("the doctor says of the disk: %s: %s", verdict, finding)
	}
	disk.Free()
	c.wantDoctor(d, "state", "ok", "")
	c.realise(store, c.ground.single.Root().StorePath)
	c.keeps(d)
	return "keeps nothing until there is room again; doctor: disk, state"
}

func diskIsFull(t *testing.T, c *trial) string {
	t.Helper()
	disk := c.Disk("daemon-consumer/state", diskSize)
	d, store := c.consumer(lab.DaemonConfig{})
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	disk.Fill(0)
	d.Start()
	store.Use(d.URL())
	c.realise(store, c.ground.small.Root().StorePath)
	c.wantDoctor(d, "state", "warning", "was not opened")
	if verdict, finding := c.doctor(d, "disk"); verdict != "failed" {
		t.Errorf("the doctor says of the disk: %s: %s", verdict, finding)
	}
	if !d.Status().Sharing.Paused {
		t.Error("it shares although it cannot know whether it may")
	}
	disk.Free()
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	d.Start()
	store.Use(d.URL())
	c.wantDoctor(d, "state", "ok", "")
	c.realise(store, c.ground.single.Root().StorePath)
	c.keeps(d)
	return "has its state in memory, and sharing paused, until the next start; doctor: disk, state"
}

func stateDeleted(t *testing.T, c *trial) string {
	t.Helper()
	d, store := c.consumer(lab.DaemonConfig{})
	if err := os.RemoveAll(filepath.Join(d.StateDir(), "db")); err != nil {
		t.Fatal(err)
	}
	c.realise(store, c.ground.small.Root().StorePath)
	c.wantDoctor(d, "state", "warning", "removed")
	d.Kill()
	d.Start()
	store.Use(d.URL())
	c.realise(store, c.ground.single.Root().StorePath)
	c.keeps(d)
	return "keeps nothing until the next start; doctor: state"
}

func stateLocked(t *testing.T, c *trial) string {
	t.Helper()
	d, _ := c.consumer(lab.DaemonConfig{})
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(filepath.Join(d.StateDir(), "db.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if said := d.Refuses(); !strings.Contains(said, "in use by another process") {
		t.Errorf("it says %q", said)
	}
	// Nix has another substituter, as it should.
	c.realise(c.nix("beside", nil, d.URL(), c.upstream.URL), c.ground.small.Root().StorePath)
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	d.Start()
	c.realise(c.nix("after", nil, d.URL()), c.ground.single.Root().StorePath)
	c.keeps(d)
	return "does not start, and says why; Nix goes to its other substituter"
}
