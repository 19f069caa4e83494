package routing

import (
	"context"
	"fmt"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// How many records a table keeps for others. One takes some 350 bytes on the disk.
// In a named network everything is announced, by nodes that are known; on the public
// one anybody can announce any number of keys, under any number of names.
const (
	maxRecords       = 4_000_000
	maxPublicRecords = 500_000
)

// recountAfter is how long a count is good for when it says that there is no room:
// records that have come in again were counted again, and others have expired.
const recountAfter = 10 * time.Minute

// limited is a datastore that passes over new keys once it has so many. The DHT's
// servers near to a key are twenty; whoever announces is not told of one that has no
// room, nor would it do anything about it.
type limited struct {
	ds.Batching

	limit int
	now   func() time.Time

	mu sync.Mutex
	// count is how many keys there are at most, and counted when that was found out.
	count   int
	counted time.Time
}

func newLimited(store ds.Batching, limit int) *limited {
	return &limited{Batching: store, limit: limit, now: time.Now}
}

// Put stores a value where there is room for it, or for the one that it replaces.
func (l *limited) Put(ctx context.Context, key ds.Key, value []byte) error {
	if ok, err := l.admit(ctx, key); err != nil || !ok {
		return err
	}
	return l.Batching.Put(ctx, key, value)
}

// Delete makes room.
func (l *limited) Delete(ctx context.Context, key ds.Key) error {
	l.mu.Lock()
	l.count = max(l.count-1, 0)
	l.mu.Unlock()
	return l.Batching.Delete(ctx, key)
}

// Batch returns a batch with the same limit.
func (l *limited) Batch(ctx context.Context) (ds.Batch, error) {
	b, err := l.Batching.Batch(ctx)
	return &limitedBatch{b, l}, err
}

// admit reports whether a key may be put, and counts it.
func (l *limited) admit(ctx context.Context, key ds.Key) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.counted.IsZero() || l.count >= l.limit && now.Sub(l.counted) >= recountAfter {
		var err error
		if l.count, err = countKeys(ctx, l.Batching); err != nil {
			return false, err
		}
		l.counted = now
	}
	if l.count >= l.limit {
		return l.Has(ctx, key)
	}
	l.count++
	return true, nil
}

func countKeys(ctx context.Context, store ds.Batching) (n int, err error) {
	results, err := store.Query(ctx, query.Query{KeysOnly: true})
	if err != nil {
		return 0, fmt.Errorf("count records: %w", err)
	}
	defer results.Close()
	for r := range results.Next() {
		if r.Error != nil {
			return 0, fmt.Errorf("count records: %w", r.Error)
		}
		n++
	}
	return n, nil
}

type limitedBatch struct {
	ds.Batch

	of *limited
}

func (b *limitedBatch) Put(ctx context.Context, key ds.Key, value []byte) error {
	if ok, err := b.of.admit(ctx, key); err != nil || !ok {
		return err
	}
	return b.Batch.Put(ctx, key, value)
}
