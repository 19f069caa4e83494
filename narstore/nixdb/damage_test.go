package nixdb_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/nixdb"
	"github.com/nar-p2p/nar-p2p/narstore/storetest"
)

// hashText stands for any NAR hash, as the database writes it.
const hashText = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

func databasePath(n *storetest.Nix) string { return filepath.Join(n.Root, "nix/var/nix/db/db.sqlite") }

// writer opens Nix's database for writing, with one connection.
func writer(tb testing.TB, n *storetest.Nix) *sql.DB {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+databasePath(n))
	if err != nil {
		tb.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	tb.Cleanup(func() { db.Close() })
	return db
}

func execute(tb testing.TB, db *sql.DB, query string, args ...any) {
	tb.Helper()
	if _, err := db.ExecContext(tb.Context(), query, args...); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
}

func TestMalformedRowsArePassedOver(t *testing.T) {
	const good = "/nix/store/00000000000000000000000000000001-good"
	name := func(s string) string { return "/nix/store/0000000000000000000000000000000" + s }
	rows := []struct {
		path, hash, deriver, narSize any
		reference                    string
	}{
		{path: "garbage", hash: hashText, narSize: 1},
		{path: "/elsewhere/00000000000000000000000000000002-x", hash: hashText, narSize: 1},
		{path: []byte{0xff, 0}, hash: hashText, narSize: 1},
		{path: name("3-hash"), hash: "md5:00", narSize: 1},
		{path: name("4-null"), hash: hashText},
		{path: name("5-text"), hash: hashText, narSize: "many"},
		{path: name("6-less"), hash: hashText, narSize: -1},
		{path: name("7-deriver"), hash: hashText, narSize: 1, deriver: "/tmp"},
		{path: name("8-reference"), hash: hashText, narSize: 1, reference: "garbage"},
		{path: name("9-" + strings.Repeat("long", 100_000)), hash: hashText, narSize: 1},
	}
	n := storetest.NewNix(t)
	db := writer(t, n)
	const insert = `INSERT INTO ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) VALUES (?, ?, 0, ?, ?, ?, ?, ?)`
	for _, r := range rows {
		execute(t, db, insert, r.path, r.hash, r.deriver, r.narSize, nil, nil, nil)
		if r.reference != "" {
			execute(t, db, `INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b WHERE a.path = ? AND b.path = ?`, r.path, r.reference)
		}
	}
	// A bad signature spoils nothing, and a hash may be in base-32.
	hash, err := nix.ParseNARHash(hashText)
	if err != nil {
		t.Fatal(err)
	}
	execute(t, db, insert, good, hash.String(), name("a-x.drv"), 1, 1, "no-signature x:y", "")

	core, logs := observer.New(zap.WarnLevel)
	store, err := nixdb.Open(nixdb.Config{Root: n.Root, Poll: poll}, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	v := storetest.Watch(t, store)
	path, err := nix.ParseStorePath(good)
	if err != nil {
		t.Fatal(err)
	}
	v.Until("the good row", func() bool { return v.Has(path) })
	deriver, err := nix.ParseStorePath(name("a-x.drv"))
	if err != nil {
		t.Fatal(err)
	}
	want := &narstore.PathInfo{Path: path, NARHash: hash, NARSize: 1, Deriver: deriver, Ultimate: true}
	if diff := cmp.Diff(want, v.Paths[path], cmp.AllowUnexported(nix.StorePath{})); diff != "" {
		t.Errorf("the good row differs (-want +got):\n%s", diff)
	}
	// One warning counts them all and names some.
	entries := logs.All()
	if len(entries) != 1 || entries[0].ContextMap()["count"] != int64(len(rows)) {
		t.Errorf("log = %v, want one warning of %d records", entries, len(rows))
	}
	part, err := nix.ParseHashPart("00000000000000000000000000000003")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Info(t.Context(), part); err == nil || !strings.Contains(err.Error(), name("3-hash")) {
		t.Errorf("Info of a malformed row = %v, want an error that names it", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	n := storetest.NewNix(t)
	store := open(t, nixdb.Config{Root: n.Root})
	tests := map[string]func(real string) error{
		"shorter": func(real string) error { return os.Truncate(filepath.Join(real, "share/large"), 10) },
		"more":    func(real string) error { return os.WriteFile(filepath.Join(real, "new"), nil, 0o644) },
		"missing": os.RemoveAll,
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			path := n.AddTree(t, name, name)
			info, err := store.Info(t.Context(), path.HashPart())
			if err != nil {
				t.Fatal(err)
			}
			makeWritable(t, n.RealPath(path))
			if err := damage(n.RealPath(path)); err != nil {
				t.Fatal(err)
			}
			_, err = store.Open(t.Context(), info)
			if err == nil || !strings.Contains(err.Error(), path.String()+" is damaged") {
				t.Errorf("Open = %v, want an error that says that %s is damaged", err, path)
			}
		})
	}
}

// makeWritable lets a test that is not root do damage.
func makeWritable(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		return os.Chmod(path, 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRebuilt: the same path, but not the same bytes.
func TestRebuilt(t *testing.T) {
	n := storetest.NewNix(t)
	store := open(t, nixdb.Config{Root: n.Root})
	path := n.AddTree(t, "tree", "tree")
	info, err := store.Info(t.Context(), path.HashPart())
	if err != nil {
		t.Fatal(err)
	}
	old := *info
	old.NARHash[0]++
	if _, err := store.Open(t.Context(), &old); !errors.Is(err, narstore.ErrNotFound) {
		t.Errorf("Open of a build that has been replaced = %v, want ErrNotFound", err)
	}
}

func TestNoStore(t *testing.T) {
	store, err := nixdb.Open(nixdb.Config{Root: t.TempDir()}, zaptest.NewLogger(t))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of nothing = %v, %v, want an error that is os.ErrNotExist", store, err)
	}
}

func TestClosedStore(t *testing.T) {
	n := storetest.NewNix(t)
	store, err := nixdb.Open(nixdb.Config{Root: n.Root}, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Follow(t.Context(), func(narstore.Update) error { return nil }); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Follow of a closed store = %v, want an error", err)
	}
}

// TestReplacedDatabase: restored from a backup, as after a reinstallation.
func TestReplacedDatabase(t *testing.T) {
	n := storetest.NewNix(t)
	store := open(t, nixdb.Config{Root: n.Root})
	first := n.AddTree(t, "first", "first")
	v := storetest.Watch(t, store)
	v.Until("the first database", func() bool { return v.Has(first) })

	other := storetest.NewNix(t)
	second := other.AddTree(t, "second", "second")
	third := other.AddTree(t, "third", "third")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(databasePath(n) + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.Rename(databasePath(other), databasePath(n)); err != nil {
		t.Fatal(err)
	}
	v.Until("the second database", func() bool { return v.Has(second, third) })
}

// TestLockedDatabase: Nix holds a lock for a moment when it recovers or removes
// its log. However long that is here, opening waits for it.
func TestLockedDatabase(t *testing.T) {
	n := storetest.NewNix(t)
	path := n.AddTree(t, "tree", "tree")
	db := writer(t, n)
	execute(t, db, `PRAGMA locking_mode = EXCLUSIVE`)
	execute(t, db, `UPDATE ValidPaths SET ultimate = 1`)
	unlock := time.AfterFunc(50*time.Millisecond, func() { db.Close() })
	defer unlock.Stop()
	store := open(t, nixdb.Config{Root: n.Root})
	info, err := store.Info(t.Context(), path.HashPart())
	if err != nil || !info.Ultimate {
		t.Errorf("Info = %+v, %v, want what was written under the lock", info, err)
	}
}

// TestDatabaseComesBack: a store that cannot be read for a while is no reason to
// end.
func TestDatabaseComesBack(t *testing.T) {
	n := storetest.NewNix(t)
	first := n.AddTree(t, "first", "first")
	warned := make(chan struct{}, 1)
	log := zaptest.NewLogger(t).WithOptions(zap.Hooks(func(e zapcore.Entry) error {
		if e.Level == zap.WarnLevel {
			warned <- struct{}{}
		}
		return nil
	}))
	store, err := nixdb.Open(nixdb.Config{Root: n.Root, Poll: poll}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	v := storetest.Watch(t, store)
	v.Until("all paths", func() bool { return v.Has(first) })

	state := filepath.Join(n.Root, "nix/var/nix")
	if err := os.Rename(state, state+"-away"); err != nil {
		t.Fatal(err)
	}
	<-warned
	if err := os.Rename(state+"-away", state); err != nil {
		t.Fatal(err)
	}
	second := n.AddTree(t, "second", "second")
	v.Until("the store's return", func() bool { return v.Has(first, second) })
}
