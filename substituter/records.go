package substituter

import (
	"encoding/json"
	"fmt"
	"sync"
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
)

// record is a narinfo that is believed, and where it came from.
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
}

// forNix returns the record in the form in which Nix gets it.
func (r *record) forNix() *narinfo.Info {
	info := *r.info
	info.URL = narinfo.NARURL(info.StorePath.HashPart(), info.NARHash)
	info.Compression = "none"
	info.FileHash, info.FileSize = info.NARHash.String(), info.NARSize
	return &info
}

// recordCache keeps the current record of each hash part, and those that it
// has superseded, since Nix still knows their NAR URLs.
//
// The database is not trusted: a record is checked again when it is read, and
// so a key that is trusted no more has no effect from the next start on.
type recordCache struct {
	bucket Bucket
	// believe returns an error for a record that is not to be believed.
	believe func(info *narinfo.Info, upstream string) error
	log     *zap.Logger

	mu sync.Mutex // held while a record is replaced
}

// storedRecord is a record on the disk.
type storedRecord struct {
	Narinfo  string    `json:"narinfo"`
	Upstream string    `json:"upstream,omitempty"`
	Private  bool      `json:"private,omitempty"`
	Fetched  time.Time `json:"fetched"`
}

func currentKey(part nix.HashPart) []byte { return append([]byte("current/"), part[:]...) }

func supersededKey(part nix.HashPart, hash nix.NARHash) []byte {
	return append(append([]byte("superseded/"), part[:]...), hash[:]...)
}

// current returns the record of a hash part, or nil.
func (c *recordCache) current(part nix.HashPart) *record { return c.read(currentKey(part), part) }

// naming returns the record, current or superseded, that gives the path with
// this hash part this NAR hash, or nil.
func (c *recordCache) naming(part nix.HashPart, hash nix.NARHash) *record {
	for _, key := range [][]byte{currentKey(part), supersededKey(part, hash)} {
		if r := c.read(key, part); r != nil && r.info.NARHash == hash {
			return r
		}
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
	return &record{info: info, upstream: stored.Upstream, private: stored.Private, fetched: stored.Fetched}, nil
}

// put makes r the current record of its hash part. A path that was once known
// to the public stays so.
func (c *recordCache) put(r *record) {
	part := r.info.StorePath.HashPart()
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.current(part)
	switch {
	case old == nil:
	case old.info.NARHash != r.info.NARHash:
		c.write(supersededKey(part, old.info.NARHash), old)
	default:
		r.private = r.private && old.private
	}
	c.write(currentKey(part), r)
}

func (c *recordCache) write(key []byte, r *record) {
	data, err := json.Marshal(storedRecord{string(r.info.Bytes()), r.upstream, r.private, r.fetched})
	if err == nil {
		err = c.bucket.Put(key, data, keepRecords)
	}
	if err != nil {
		c.log.Warn("record not kept", zap.Stringer("storePath", r.info.StorePath), zap.Error(err))
	}
}
