package state

import (
	"errors"
	"fmt"
	"iter"

	"github.com/dgraph-io/badger/v4"
)

// GetAll calls f with the value of each key that is there, and its place in
// keys. The value is f's only during the call. It is one transaction, and takes
// some microseconds for each key.
func (b *Bucket) GetAll(keys [][]byte, f func(i int, value []byte)) error {
	return b.do("get", func() error {
		return b.db.ds.DB.View(func(txn *badger.Txn) error {
			var full []byte
			for i, key := range keys {
				full = append(append(full[:0], b.prefix...), key...)
				item, err := txn.Get(full)
				if errors.Is(err, badger.ErrKeyNotFound) {
					continue
				}
				if err != nil {
					return err
				}
				if err := item.Value(func(value []byte) error { f(i, value); return nil }); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// Change puts values under keys, or deletes those whose value is nil. It is not
// one transaction: after an error some of it may have happened.
func (b *Bucket) Change(changes iter.Seq2[[]byte, []byte]) error {
	return b.write("change", func() error {
		batch := b.db.ds.DB.NewWriteBatch()
		defer batch.Cancel()
		for key, value := range changes {
			if len(key) == 0 || len(key) > MaxKey || len(value) > MaxValue {
				return fmt.Errorf("key of %d and value of %d bytes, limits are %d and %d", len(key), len(value), MaxKey, MaxValue)
			}
			var err error
			if value == nil {
				err = batch.Delete(b.full(key))
			} else {
				err = batch.Set(b.full(key), value)
			}
			if err != nil {
				return err
			}
		}
		return batch.Flush()
	})
}
