// Package state is the node's database: one Badger database in one folder, in
// which every subsystem has a bucket of its own or a datastore of its own.
//
// Everything in it can be rebuilt. So a damaged database is set aside and a new
// one begun: that costs time, never correctness. Open reads and verifies all
// tables first (about a second per gigabyte), because Badger ends the process
// when it comes across some kinds of damage later.
//
// On a disk that is nearly full nothing more is written, since Badger would end the
// process there, and where there is no room to open the database it is kept in
// memory.
//
// Badger and go-ds-badger4 log through go-log's logger "badger4", which the
// program routes.
package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	badger4 "github.com/ipfs/go-ds-badger4"
	"go.uber.org/zap"
)

// format is the version of what the database holds. One of another version is
// treated as damaged.
const format = "1"

// formatKey holds the format. No raw key begins with '/': such are the
// datastores' keys.
var formatKey = []byte("format")

var errClosed = errors.New("state: database is closed")

// DB is an open database. Its methods are safe for concurrent use.
type DB struct {
	log  *zap.Logger
	ds   *badger4.Datastore
	lock *os.File
	gate *gate
	// setAside is the folder of a damaged database that Open has found, or "".
	setAside string

	mu     sync.Mutex
	closed bool
	// inUse counts calls that Close waits for; it grows under mu only.
	inUse sync.WaitGroup
}

// Open opens the database in dir, which it creates where there is none. A
// damaged one is renamed to "<dir>.damaged-<UTC time>" and a new one begun. It
// returns an error where another process has the database open, and where no
// new one can be begun either. Without room on the disk it begins one in memory; see
// Problem.
func Open(dir string, log *zap.Logger) (*DB, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	log = log.Named("state")
	lock, err := acquire(dir)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	db := &DB{log: log, lock: lock, gate: &gate{dir: dir, log: log}}
	if full := roomToOpen(dir); full != nil {
		err = db.openInMemory(full)
	} else {
		err = db.openOnDisk(dir)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("state: database %s: %w", dir, err)
	}
	return db, nil
}

func (db *DB) openOnDisk(dir string) (err error) {
	if db.ds, db.setAside, err = openOrRenew(dir, db.log); err != nil {
		return err
	}
	db.gate.folder, err = os.Stat(dir)
	return err
}

// openInMemory begins an empty database that ends with the process.
func (db *DB) openInMemory(full error) (err error) {
	db.gate.forEver = fmt.Errorf("it was not opened, since %w: make room and restart nar-p2pd", full)
	db.log.Warn("the database is not opened, and nothing is kept until the next start", zap.Error(full))
	db.ds, err = badger4.NewDatastore("", &badger4.Options{Options: tuned().WithInMemory(true)})
	return err
}

// Problem returns why nothing is kept at present, or nil.
func (db *DB) Problem() error { return db.gate.state() }

// SetAside returns the folder of a damaged database that was set aside when this one
// was opened, or "".
func (db *DB) SetAside() string { return db.setAside }

// Forgetful reports whether what was kept before cannot be read.
func (db *DB) Forgetful() bool { return db.gate.forEver != nil }

// Close waits for calls under way and closes the database. Datastores and
// buckets return errors from then on.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return errClosed
	}
	db.closed = true
	db.mu.Unlock()
	db.inUse.Wait()
	err := db.ds.Close()
	if lockErr := db.lock.Close(); err == nil {
		err = lockErr
	}
	if err != nil {
		return fmt.Errorf("state: closing: %w", err)
	}
	return nil
}

// Datastore returns the datastore of a subsystem. Closing it closes nothing.
// The namespace is one path element, but not "0" or "1".
func (db *DB) Datastore(name string) ds.Batching {
	if name == "0" || name == "1" {
		panic("state: reserved namespace " + name)
	}
	return namespace.Wrap(shared{db.ds, db.gate}, ds.NewKey(name))
}

// enter keeps the database open until leave, unless it is closed already.
func (db *DB) enter() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return errClosed
	}
	db.inUse.Add(1)
	return nil
}

func (db *DB) leave() { db.inUse.Done() }

// tuned returns options for a workstation: it takes tens of megabytes of memory
// where Badger's defaults take hundreds, and opens in milliseconds. Values stay
// below the value threshold (1 MiB) by MaxValue, so the value log is never used
// and needs no collection.
func tuned() badger.Options {
	return badger.DefaultOptions("").
		WithMemTableSize(8 << 20).
		WithNumMemtables(2).
		WithBaseTableSize(2 << 20).
		WithBaseLevelSize(8 << 20).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(4).
		WithBlockCacheSize(8 << 20).
		WithIndexCacheSize(8 << 20).
		WithValueLogFileSize(16 << 20).
		WithNumCompactors(2).
		WithChecksumVerificationMode(options.OnBlockRead)
}

// openSound opens the database in dir, or returns an error where it is damaged
// or cannot be opened.
func openSound(dir string) (*badger4.Datastore, error) {
	fresh, err := verify(dir)
	if err != nil {
		return nil, err
	}
	store, err := openBadger(dir)
	if err != nil {
		return nil, err
	}
	if err := checkFormat(store.DB, fresh); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

func openBadger(dir string) (store *badger4.Datastore, err error) {
	defer recovered(&err)
	return badger4.NewDatastore(dir, &badger4.Options{Options: tuned()})
}

// checkFormat reads the format, or writes it where the database is fresh.
func checkFormat(db *badger.DB, fresh bool) (err error) {
	defer recovered(&err)
	if fresh {
		if err := db.Update(func(txn *badger.Txn) error { return txn.Set(formatKey, []byte(format)) }); err != nil {
			return err
		}
		return db.Sync()
	}
	return db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(formatKey)
		if err != nil {
			return fmt.Errorf("format: %w", err)
		}
		return item.Value(func(v []byte) error {
			if string(v) != format {
				return fmt.Errorf("format is %.10q, not %q", v, format)
			}
			return nil
		})
	})
}
