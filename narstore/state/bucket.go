package state

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

const (
	// MaxKey is the longest key in bytes.
	MaxKey = 1 << 10
	// MaxValue is the longest value in bytes. Whoever has more stores it in
	// parts. It keeps values out of Badger's value log, see tuned.
	MaxValue = 256 << 10
)

// ErrNotFound says that a bucket does not have a key.
var ErrNotFound = errors.New("state: no such key")

// Bucket is a subsystem's own set of keys. Its methods are safe for concurrent
// use. Where the database is found damaged they log that and return an error,
// which callers treat as a miss: the next Open begins anew.
type Bucket struct {
	db     *DB
	prefix string
}

// Bucket returns the bucket of this name, which must not contain '/'.
func (db *DB) Bucket(name string) *Bucket {
	if name == "" || strings.Contains(name, "/") {
		panic("state: bucket name " + name)
	}
	return &Bucket{db: db, prefix: "b/" + name + "/"}
}

// Get returns the value of key, or an error that is ErrNotFound.
func (b *Bucket) Get(key []byte) (value []byte, err error) {
	err = b.do("get", func() error {
		return b.db.ds.DB.View(func(txn *badger.Txn) error {
			item, err := txn.Get(b.full(key))
			if err != nil {
				return err
			}
			value, err = item.ValueCopy(nil)
			return err
		})
	})
	return value, err
}

// Put sets the value of key for ttl, in whole seconds; 0 is for ever.
func (b *Bucket) Put(key, value []byte, ttl time.Duration) error {
	if len(key) == 0 || len(key) > MaxKey || len(value) > MaxValue {
		return fmt.Errorf("state: bucket %s: key of %d and value of %d bytes, limits are %d and %d",
			b.name(), len(key), len(value), MaxKey, MaxValue)
	}
	return b.write("put", func() error {
		return b.db.ds.DB.Update(func(txn *badger.Txn) error {
			entry := badger.NewEntry(b.full(key), value)
			if ttl > 0 {
				entry = entry.WithTTL(ttl)
			}
			return txn.SetEntry(entry)
		})
	})
}

// Delete removes key. It is no error where there is none.
func (b *Bucket) Delete(key []byte) error {
	return b.write("delete", func() error {
		return b.db.ds.DB.Update(func(txn *badger.Txn) error { return txn.Delete(b.full(key)) })
	})
}

// Each calls f with every key and value, ordered by key, as they were when it
// began, until ctx ends or f returns an error, which it returns. The slices are
// f's only during the call. f may use the bucket.
func (b *Bucket) Each(ctx context.Context, f func(key, value []byte) error) error {
	var stopped error
	err := b.do("each", func() error {
		return b.db.ds.DB.View(func(txn *badger.Txn) error {
			// Values of MaxValue are prefetched: a few at a time.
			it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(b.prefix), PrefetchValues: true, PrefetchSize: 8})
			defer it.Close()
			for it.Rewind(); it.Valid(); it.Next() {
				item := it.Item()
				err := item.Value(func(value []byte) error {
					if stopped = ctx.Err(); stopped == nil {
						stopped = f(item.Key()[len(b.prefix):], value)
					}
					return nil
				})
				if err != nil || stopped != nil {
					return err
				}
			}
			return nil
		})
	})
	if err == nil {
		err = stopped
	}
	return err
}

func (b *Bucket) full(key []byte) []byte { return append([]byte(b.prefix), key...) }

func (b *Bucket) name() string { return strings.Split(b.prefix, "/")[1] }

// write is do for what writes, while the gate is open. That it is closed is logged
// once, by the gate.
func (b *Bucket) write(what string, f func() error) error {
	if err := b.db.gate.pass(); err != nil {
		return fmt.Errorf("state: bucket %s: %s: %w", b.name(), what, err)
	}
	return b.do(what, f)
}

// do runs f on the open database. Errors other than an absent key are logged
// here, because callers go on as if the key were absent.
func (b *Bucket) do(what string, f func() error) error {
	if err := b.db.enter(); err != nil {
		return err
	}
	defer b.db.leave()
	err := guard(f)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, badger.ErrKeyNotFound):
		return ErrNotFound
	}
	b.db.log.Error("database access", zap.String("bucket", b.name()), zap.String("call", what), zap.Error(err))
	return fmt.Errorf("state: bucket %s: %s: %w", b.name(), what, err)
}

// guard runs f and returns its panic as an error.
func guard(f func() error) (err error) {
	defer recovered(&err)
	return f()
}
