package routing

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p-kad-dht/records"
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

// A record of more than clockAhead from now was put in while the clock was wrong, and
// would be kept until then. It is taken to be the clock of now that is right once the
// node has run for clockSettled: some machines begin each time in 1970.
const (
	clockAhead   = time.Hour
	clockSettled = time.Hour
)

// limited is a datastore that passes over new keys once it has so many. The DHT's
// servers near to a key are twenty; whoever announces is not told of one that has no
// room, nor would it do anything about it.
type limited struct {
	ds.Batching

	limit  int
	now    func() time.Time
	opened time.Time

	mu sync.Mutex
	// count is how many keys there are at most, and counted when that was found out.
	count   int
	counted time.Time
}

func newLimited(store ds.Batching, limit int) *limited {
	return &limited{Batching: store, limit: limit, now: time.Now, opened: time.Now()}
}

// Put stores a value where there is room for it, or for the one that it replaces.
func (l *limited) Put(ctx context.Context, key ds.Key, value []byte) error {
	if ok, err := l.admit(ctx, key); err != nil || !ok {
		return err
	}
	return l.Batching.Put(ctx, key, value)
}

// Query returns what is kept. Records of a time to come are such as have expired,
// which the DHT then deletes.
func (l *limited) Query(ctx context.Context, q query.Query) (query.Results, error) {
	results, err := l.Batching.Query(ctx, q)
	if err != nil || q.KeysOnly || !strings.HasPrefix(q.Prefix, records.ProvidersKeyPrefix) || time.Since(l.opened) < clockSettled {
		return results, err
	}
	latest := l.now().Add(clockAhead).UnixNano()
	return query.ResultsFromIterator(q, query.Iterator{
		Next: func() (query.Result, bool) {
			r, ok := results.NextSync()
			if at, n := binary.Varint(r.Value); n > 0 && at > latest {
				r.Value = binary.AppendVarint(nil, 0)
			}
			return r, ok
		},
		Close: results.Close,
	}), nil
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
