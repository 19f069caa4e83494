package substituter

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// keepRecords is as long as Nix keeps a narinfo with its URL. A record
	// that is asked for is revalidated, and so renewed, before that.
	keepRecords = 30 * 24 * time.Hour
	// refreshAfter is the age at which a record is revalidated. Store paths do
	// not change; the URL at an upstream may.
	refreshAfter = 24 * time.Hour
	// defaultMaxRecords is a dozen systems of 5,000 paths each, in about 100 MB.
	defaultMaxRecords = 64 << 10
	// roomShare is the part of the records that is removed at once where there
	// are too many: looking through all of them costs about a second.
	roomShare = 8
)

// record is a narinfo that is believed, and where it came from. It does not
// change once it is kept.
type record struct {
	// info is as its source gave it, but for what trust.Keys.Clean took out.
	info *narinfo.Info
	// upstream is the cache that info.URL belongs to, or "".
	upstream string
	// private is true if only private upstreams or the local store know of it.
	private bool
	fetched time.Time
	// took is how long the upstream took to answer, 0 if none did.
	took time.Duration
	// checked is when the upstreams were last asked again, to no avail, or zero.
	checked time.Time
	// generation is that of the setup under which it was believed; 0 where it was
	// read from the disk.
	generation uint64
}

// forNix returns the record in the form in which Nix gets it.
func (r *record) forNix() *narinfo.Info {
	info := *r.info
	info.URL = narinfo.NARURL(info.StorePath.HashPart(), info.NARHash)
	info.Compression = "none"
	info.FileHash, info.FileSize = info.NARHash.String(), info.NARSize
	return &info
}

// stale reports whether the record is to be revalidated: also if it is of a time
// that is yet to come, when the clock was wrong.
func (r *record) stale() bool {
	return time.Since(r.fetched).Abs() > refreshAfter && time.Since(r.checked).Abs() > refreshAfter
}

// recordCache keeps the current record of each hash part, and those that it
// has superseded, since Nix still knows their NAR URLs. What was asked for
// lately is in memory too.
//
// The database is not trusted: a record is checked again when it is read, and
// so a key that is trusted no more has no effect once the memory is cleared.
type recordCache struct {
	bucket Bucket
	// believe returns an error for a record that is not to be believed.
	believe func(info *narinfo.Info, upstream string) error
	log     *zap.Logger
	memory  *memory
	// limit is how many current records there may be on the disk, and as many
	// superseded ones.
	limit int

	// room is how many records may be added before run must look whether there
	// are too many.
	room    atomic.Int64
	crowded chan struct{} // tells run so

	mu sync.Mutex // held while a record is replaced
	// generation is that of the setup by which records are believed.
	generation uint64
}

func newRecordCache(bucket Bucket, believe func(*narinfo.Info, string) error, limit int, log *zap.Logger) *recordCache {
	c := &recordCache{
		bucket: bucket, believe: believe, limit: limit, log: log,
		memory: newMemory(memorySize), crowded: make(chan struct{}, 1), generation: firstGeneration,
	}
	c.room.Store(int64(limit))
	return c
}

// storedRecord is a record on the disk.
type storedRecord struct {
	Narinfo  string `json:"narinfo"`
	Upstream string `json:"upstream,omitempty"`
	Private  bool   `json:"private,omitempty"`
	storedTimes
}

type storedTimes struct {
	Fetched time.Time     `json:"fetched"`
	Took    time.Duration `json:"took,omitempty"` // nanoseconds
	Checked time.Time     `json:"checked,omitzero"`
}

const (
	currentPrefix    = "current/"
	supersededPrefix = "superseded/"
)

func currentKey(part nix.HashPart) []byte { return append([]byte(currentPrefix), part[:]...) }

func supersededKey(part nix.HashPart, hash nix.NARHash) []byte {
	return append(append([]byte(supersededPrefix), part[:]...), hash[:]...)
}

// current returns the record of a hash part, or nil.
func (c *recordCache) current(part nix.HashPart) *rendered {
	if r := c.memory.get(part); r != nil {
		return r
	}
	generation := c.memory.now()
	r := c.read(currentKey(part), part)
	if r == nil {
		return nil
	}
	return c.memory.add(render(r), generation)
}

// naming returns the record, current or superseded, that gives the path with
// this hash part this NAR hash, or nil.
func (c *recordCache) naming(part nix.HashPart, hash nix.NARHash) *rendered {
	if r := c.current(part); r != nil && r.info.NARHash == hash {
		return r
	}
	if r := c.read(supersededKey(part, hash), part); r != nil && r.info.NARHash == hash {
		return render(r)
	}
	return nil
}

func (c *recordCache) read(key []byte, part nix.HashPart) *record {
	data, err := c.bucket.Get(key)
	if err != nil {
		return nil
	}
	r, err := c.parse(data, part)
	if err != nil {
		c.log.Debug("kept record is of no use", zap.Stringer("hashPart", part), zap.Error(err))
		return nil
	}
	return r
}

func (c *recordCache) parse(data []byte, part nix.HashPart) (*record, error) {
	var stored storedRecord
	if err := json.Unmarshal(data, &stored); err != nil {
		return nil, err
	}
	info, err := narinfo.Parse([]byte(stored.Narinfo))
	if err != nil {
		return nil, err
	}
	if info.StorePath.HashPart() != part {
		return nil, fmt.Errorf("it is for %s", info.StorePath)
	}
	if err := c.believe(info, stored.Upstream); err != nil {
		return nil, err
	}
	return &record{
		info: info, upstream: stored.Upstream, private: stored.Private,
		fetched: stored.Fetched, took: stored.Took, checked: stored.Checked,
	}, nil
}

// put makes r the current record of its hash part. A path that was once known
// to the public stays so. It returns nil where the record is not to be believed
// any more, since who was trusted has changed.
func (c *recordCache) put(r *record) *rendered {
	part := r.info.StorePath.HashPart()
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.generation != c.generation && c.believe(r.info, r.upstream) != nil {
		return nil
	}
	old := c.current(part)
	renewed := old != nil && old.info.NARHash == r.info.NARHash
	switch {
	case renewed && r.private && !old.private:
		public := *r
		public.private = false
		r = &public
	case old != nil && !renewed:
		c.write(supersededKey(part, old.info.NARHash), old.record)
	}
	held := c.memory.put(render(r)) // before makeRoom can see it on the disk
	c.write(currentKey(part), r)
	if !renewed {
		c.grow()
	}
	return held
}

// doubt has everything that is in memory checked again before it is used, once
// change has changed who is trusted.
func (c *recordCache) doubt(generation uint64, change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	c.generation = generation
	c.memory.clear()
}

func (c *recordCache) write(key []byte, r *record) {
	data, err := json.Marshal(storedRecord{
		string(r.info.Bytes()), r.upstream, r.private, storedTimes{r.fetched, r.took, r.checked},
	})
	if err == nil {
		err = c.bucket.Put(key, data, keepRecords)
	}
	if err != nil {
		c.log.Debug("record not kept", zap.Stringer("storePath", r.info.StorePath), zap.Error(err))
	}
}

// grow counts a record that is new on the disk. (It may be counted twice, where
// makeRoom has just seen it.)
func (c *recordCache) grow() {
	if c.room.Add(-1) < 0 {
		select {
		case c.crowded <- struct{}{}:
		default:
		}
	}
}

// run keeps the number of records on the disk within the limit until ctx ends.
func (c *recordCache) run(ctx context.Context) error {
	for {
		if err := c.makeRoom(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("old records not removed", zap.Error(err))
		}
		select {
		case <-c.crowded:
		case <-ctx.Done():
			return nil
		}
	}
}

// kept is the key of a record on the disk and when it was last of use. No use
// costs a write: a record that is used is revalidated once a day, and the use
// of those in memory is known.
type kept struct {
	key    string
	rank   int   // among those in memory, 1 for the one whose use is longest ago; 0 for all others
	latest int64 // Unix time of the last answer or revalidation
}

// makeRoom counts the records on the disk and removes those whose last use is
// longest ago where there are too many.
func (c *recordCache) makeRoom(ctx context.Context) error {
	c.room.Store(int64(c.limit)) // grow counts what comes from now on
	var current, superseded []kept
	err := c.bucket.Each(ctx, func(key, value []byte) error {
		var times storedTimes
		_ = json.Unmarshal(value, &times) // what cannot be read is the first to go
		k := kept{key: string(key), latest: max(times.Fetched.Unix(), times.Checked.Unix())}
		if strings.HasPrefix(k.key, currentPrefix) {
			current = append(current, k)
		} else {
			superseded = append(superseded, k)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for part, rank := range c.memory.ranks() {
		i, ok := slices.BinarySearchFunc(current, string(currentKey(part)), func(k kept, key string) int {
			return strings.Compare(k.key, key)
		})
		if ok {
			current[i].rank = rank
		}
	}
	c.room.Add(-int64(max(c.cut(current), c.cut(superseded))))
	return nil
}

// cut removes the surplus and returns how many are left. A record that is
// renewed at that moment may go with it, and is then asked for again.
func (c *recordCache) cut(records []kept) (left int) {
	if len(records) <= c.limit {
		return len(records)
	}
	slices.SortFunc(records, func(a, b kept) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.latest, b.latest))
	})
	surplus := len(records) - c.limit + c.limit/roomShare
	for _, k := range records[:surplus] {
		if err := c.bucket.Delete([]byte(k.key)); err != nil {
			c.log.Warn("old record not removed", zap.Error(err))
		}
	}
	c.log.Debug("old records removed", zap.Int("removed", surplus), zap.Int("left", len(records)-surplus))
	return len(records) - surplus
}
