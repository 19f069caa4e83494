package faults

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // the driver

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// storeFaults are those of the Nix store from which a provider serves.
func storeFaults() []fault {
	return []fault{
		{area: ofStore, name: "its database is locked", meet: databaseLocked},
		{area: ofStore, name: "its database is replaced under the daemon", meet: databaseReplaced},
		{area: ofStore, name: "its database is migrated under the daemon", meet: databaseMigrated},
		{area: ofStore, name: "a path is garbage-collected during its upload", meet: pathCollected},
		{area: ofStore, name: "a path is modified on the disk during its upload", meet: pathModified},
		{area: ofStore, name: "a path becomes unreadable during its upload", meet: pathUnreadable},
	}
}

// producer makes a Nix store with paths of the ground.
func (c *trial) producer(paths ...nix.StorePath) *lab.Nix {
	c.t.Helper()
	producer := c.nix("producer", nil)
	for _, path := range paths {
		producer.Import(c.ground.cache, path)
	}
	return producer
}

func (c *trial) provider(producer *lab.Nix, under ...string) *lab.Daemon {
	c.t.Helper()
	return c.Daemon("provider", lab.DaemonConfig{StoreRoot: producer.Root, Keys: c.ground.keys, Under: under})
}

func databaseOf(n *lab.Nix) string { return filepath.Join(n.Root, "nix/var/nix/db/db.sqlite") }

// withDatabase gives f a connection to Nix's database.
func withDatabase(t *testing.T, n *lab.Nix, f func(context.Context, *sql.Conn) error) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+databaseOf(n)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := f(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
}

func execute(ctx context.Context, conn *sql.Conn, queries ...string) error {
	for _, q := range queries {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// In the mode without a log, for which Nix has a setting, a writer locks readers
// out.
func databaseLocked(t *testing.T, c *trial) string {
	t.Helper()
	single, small := c.ground.single.Root().StorePath, c.ground.small.Root().StorePath
	producer := c.producer(single, small)
	withDatabase(t, producer, func(ctx context.Context, conn *sql.Conn) error {
		return execute(ctx, conn, `PRAGMA journal_mode = DELETE`)
	})
	provider := c.provider(producer)
	provider.WaitShared(1 + smallPaths)
	_, d, store := c.wired(provider)
	c.upstream.Release()
	withDatabase(t, producer, func(ctx context.Context, conn *sql.Conn) error {
		if err := execute(ctx, conn, `BEGIN EXCLUSIVE`); err != nil {
			return err
		}
		c.realise(store, single)
		c.wantDoctor(provider, "store", "warning", "locked")
		return execute(ctx, conn, `ROLLBACK`)
	})
	needs(t, d, "upstream")
	c.wantDoctor(provider, "store", "ok", "")
	c.upstream.Fail(lab.ServerError, lab.NAR)
	c.realise(store, small)
	needs(t, d, "peer")
	return givers(d) + "; doctor: store"
}

// As from a backup.
func databaseReplaced(t *testing.T, c *trial) string {
	t.Helper()
	producer := c.producer(c.ground.single.Root().StorePath)
	provider := c.provider(producer)
	provider.WaitShared(1)
	database := databaseOf(producer)
	withDatabase(t, producer, func(ctx context.Context, conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, `VACUUM INTO ?`, database+".backup")
		return err
	})
	for _, end := range []string{"-wal", "-shm"} {
		if err := os.Remove(database + end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.Rename(database+".backup", database); err != nil {
		t.Fatal(err)
	}
	return c.stillFollows(producer, provider)
}

func databaseMigrated(t *testing.T, c *trial) string {
	t.Helper()
	producer := c.producer(c.ground.single.Root().StorePath)
	provider := c.provider(producer)
	provider.WaitShared(1)
	withDatabase(t, producer, func(ctx context.Context, conn *sql.Conn) error {
		return execute(ctx, conn, `BEGIN`, `ALTER TABLE ValidPaths ADD COLUMN later text`,
			`CREATE TABLE Later (id integer primary key)`, `CREATE INDEX LaterIndex ON ValidPaths(later)`, `COMMIT`)
	})
	return c.stillFollows(producer, provider)
}

// stillFollows checks that a provider shares what comes into its store.
func (c *trial) stillFollows(producer *lab.Nix, provider *lab.Daemon) string {
	c.t.Helper()
	small := c.ground.small.Root().StorePath
	producer.Import(c.ground.cache, small)
	provider.WaitShared(1 + smallPaths)
	c.upstream.Fail(lab.ServerError, lab.NAR)
	_, d, store := c.wired(provider)
	c.upstream.Release()
	c.realise(store, small)
	needs(c.t, d, "peer")
	return givers(d)
}

// uploading lets Nix substitute the single path from a provider with a store of its
// own, and calls happens in the middle.
func (c *trial) uploading(under []string, happens func(producer *lab.Nix)) (*lab.Daemon, *lab.Daemon) {
	c.t.Helper()
	record := c.ground.single.Root()
	producer := c.producer(record.StorePath, c.ground.small.Root().StorePath)
	provider := c.provider(producer, under...)
	provider.WaitShared(1 + smallPaths)
	w, d, store := c.wired(provider)
	w.After(record.NARSize/4, lab.Carry, func() {
		happens(producer)
		c.upstream.Release()
	})
	c.realise(store, record.StorePath)
	tripped(c.t, w)
	return provider, d
}

func pathCollected(t *testing.T, c *trial) string {
	t.Helper()
	path := c.ground.single.Root().StorePath
	provider, d := c.uploading(nil, func(producer *lab.Nix) { producer.MustRun("nix-store", "--delete", path.String()) })
	c.WaitFor("the provider to share it no more", func() bool { return provider.Status().Store.Shareable == smallPaths })
	return givers(d)
}

// largest is the largest file of a path.
func largest(t *testing.T, n *lab.Nix, path nix.StorePath) (name string) {
	t.Helper()
	var size int64
	err := filepath.WalkDir(n.Real(path), func(at string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() > size {
			name, size = at, info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// As by hand, or by a disk: behind what was sent the file has other bytes.
func pathModified(t *testing.T, c *trial) string {
	t.Helper()
	path := c.ground.single.Root().StorePath
	provider, d := c.uploading(nil, func(producer *lab.Nix) {
		name := largest(t, producer, path)
		if err := os.Chmod(name, 0o644); err != nil {
			t.Error(err)
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := f.WriteAt(make([]byte, largeSize/2), largeSize/2); err != nil {
			t.Error(err)
		}
	})
	c.another(provider)
	c.wantDoctor(provider, "store", "warning", path.String())
	return givers(d) + "; doctor: store"
}

// another consumer opens the single path of a provider anew, which finds out that it
// is damaged, and gets it from the upstream.
func (c *trial) another(provider *lab.Daemon) {
	c.t.Helper()
	c.WaitFor("the files to be closed", func() bool { return provider.Status().P2P.Served.ActiveSessions == 0 })
	d := c.Daemon("another", lab.DaemonConfig{Bootstrap: provider, Upstreams: []string{c.upstream.URL}, Keys: c.ground.keys})
	c.WaitFor("another to speak with the provider", func() bool { return d.Speaks(provider) })
	c.upstream.Hold(lab.NAR)
	found := make(chan struct{})
	go func() {
		defer close(found)
		defer c.upstream.Release()
		c.WaitFor("the provider to find the damage", func() bool { return len(provider.Status().Store.Damaged) > 0 })
	}()
	c.realise(c.nix("another-nix", nil, d.URL()), c.ground.single.Root().StorePath)
	<-found
	needs(c.t, d, "upstream")
}

// Root would read everything: so the provider is without that privilege.
func pathUnreadable(t *testing.T, c *trial) string {
	t.Helper()
	path := c.ground.single.Root().StorePath
	provider, d := c.uploading([]string{"setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"}, func(producer *lab.Nix) {
		if err := os.Chmod(largest(t, producer, path), 0); err != nil {
			t.Error(err)
		}
	})
	c.another(provider)
	c.wantDoctor(provider, "store", "warning", path.String())
	return givers(d) + "; doctor: store"
}
