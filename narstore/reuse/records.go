package reuse

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

const (
	// entryCost is what an entry takes on the disk, about, in bytes.
	entryCost = 72
	// recordCost is the like for the record of a path.
	recordCost = 128
	// useGrain is how exactly the last use is known: it is not written at every
	// use.
	useGrain = 24 * time.Hour
)

// record is what is known of a path that is indexed.
type record struct {
	hash nix.NARHash
	size int64
	// entries were made of it, or more.
	entries int64
	// indexed and used are when it was indexed and last used, in seconds since
	// 1970.
	indexed, used int64
	// complete is false where not all of it was indexed.
	complete bool
	public   bool
}

const recordSize = len(nix.NARHash{}) + 4*8 + 1

func (r *record) cost() int64 { return recordCost + r.entries*entryCost }

func (r *record) encode() []byte {
	b := append(make([]byte, 0, recordSize), r.hash[:]...)
	for _, n := range []int64{r.size, r.entries, r.indexed, r.used} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	flags := byte(0)
	if r.complete {
		flags |= 1
	}
	if r.public {
		flags |= 2
	}
	return append(b, flags)
}

func decodeRecord(b []byte) (r record, ok bool) {
	if len(b) != recordSize {
		return r, false
	}
	b = b[copy(r.hash[:], b):]
	for _, n := range []*int64{&r.size, &r.entries, &r.indexed, &r.used} {
		*n = int64(binary.BigEndian.Uint64(b))
		b = b[8:]
	}
	r.complete, r.public = b[0]&1 != 0, b[0]&2 != 0
	return r, r.size > 0 && r.entries >= 0 && r.entries <= 2*r.size
}

// records are those of all paths that are indexed, in memory and on the disk.
// Where the bucket fails they are in memory alone: bucket errors are logged
// there.
type records struct {
	bucket *state.Bucket

	mu sync.RWMutex
	of map[nix.HashPart]record
	// cost is the sum of theirs; orphaned counts the entries of those that were
	// dropped, until they are swept.
	cost, orphaned int64
}

// recall reads the records that are kept.
func recall(bucket *state.Bucket) *records {
	rs := &records{bucket: bucket, of: make(map[nix.HashPart]record)}
	_ = bucket.Each(context.Background(), func(key, value []byte) error {
		if r, ok := decodeRecord(value); ok && len(key) == len(nix.HashPart{}) {
			rs.of[nix.HashPart(key)] = r
			rs.cost += r.cost()
		}
		return nil
	})
	return rs
}

func (rs *records) get(part nix.HashPart) (record, bool) {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	r, ok := rs.of[part]
	return r, ok
}

func (rs *records) empty() bool {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return len(rs.of) == 0
}

func (rs *records) parts() []nix.HashPart {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	parts := make([]nix.HashPart, 0, len(rs.of))
	for part := range rs.of {
		parts = append(parts, part)
	}
	return parts
}

// bytes is about what the index takes on the disk.
func (rs *records) bytes() int64 {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.cost + rs.orphaned*entryCost
}

// orphans counts the entries that lead nowhere.
func (rs *records) orphans() int64 {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return rs.orphaned
}

func (rs *records) swept() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.orphaned = 0
}

func (rs *records) put(part nix.HashPart, r record) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if old, ok := rs.of[part]; ok {
		rs.cost -= old.cost()
	}
	rs.of[part] = r
	rs.cost += r.cost()
	_ = rs.bucket.Put(part[:], r.encode(), 0)
}

func (rs *records) drop(part nix.HashPart) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.dropHeld(part)
}

// dropHeld is drop; mu is held.
func (rs *records) dropHeld(part nix.HashPart) {
	r, ok := rs.of[part]
	if !ok {
		return
	}
	delete(rs.of, part)
	rs.cost -= r.cost()
	rs.orphaned += r.entries
	_ = rs.bucket.Delete(part[:])
}

// touch notes a use.
func (rs *records) touch(part nix.HashPart) {
	now := time.Now()
	r, ok := rs.get(part)
	if ok && now.Sub(time.Unix(r.used, 0)).Abs() > useGrain {
		r.used = now.Unix()
		rs.put(part, r)
	}
}

// evict drops the paths that were not used for longest, until a tenth of limit
// is free, and returns how many. Where nothing has to go it returns 0.
func (rs *records) evict(limit int64) (dropped int) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.cost <= limit {
		return 0
	}
	type aged struct {
		part nix.HashPart
		used int64
	}
	all := make([]aged, 0, len(rs.of))
	for part, r := range rs.of {
		all = append(all, aged{part, max(r.used, r.indexed)})
	}
	slices.SortFunc(all, func(a, b aged) int {
		return cmp.Or(cmp.Compare(a.used, b.used), slices.Compare(a.part[:], b.part[:]))
	})
	for _, a := range all {
		if rs.cost <= limit/10*9 {
			break
		}
		rs.dropHeld(a.part)
		dropped++
	}
	return dropped
}
