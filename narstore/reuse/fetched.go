package reuse

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// maxFetched and maxFetchedChunks bound the manifests that wait for their
	// paths to appear in the store, which is a matter of seconds. It is some 6 MB.
	maxFetched       = 4096
	maxFetchedChunks = 64 << 10
)

// fetched are NARs that have just come, with the chunks that they consist of:
// as soon as Nix has unpacked one its path is indexed, unread.
type fetched struct {
	mu     sync.Mutex
	lru    *simplelru.LRU[nix.HashPart, arrival]
	chunks int
}

type arrival struct {
	hash   nix.NARHash
	chunks []located
}

func newFetched() *fetched {
	f := &fetched{}
	lru, err := simplelru.NewLRU(maxFetched, func(_ nix.HashPart, a arrival) { f.chunks -= len(a.chunks) })
	if err != nil {
		panic("reuse: " + err.Error()) // the size is positive
	}
	f.lru = lru
	return f
}

func (f *fetched) add(part nix.HashPart, a arrival) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lru.Remove(part)
	f.lru.Add(part, a)
	f.chunks += len(a.chunks)
	for f.chunks > maxFetchedChunks {
		f.lru.RemoveOldest()
	}
}

// take returns the chunks of a path that has appeared, if they are known.
func (f *fetched) take(info *narstore.PathInfo) []located {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.lru.Peek(info.Path.HashPart())
	if !ok {
		return nil
	}
	f.lru.Remove(info.Path.HashPart())
	if a.hash != info.NARHash {
		return nil
	}
	return a.chunks
}

// Fetched tells that the NAR of a path has come, and that its whole has had its
// hash, so that these are its chunks.
func (x *Index) Fetched(path nix.StorePath, hash nix.NARHash, chunks []chunk.Chunk) {
	if path.IsZero() || len(chunks) > maxFetchedChunks {
		return
	}
	x.fetched.add(path.HashPart(), arrival{hash: hash, chunks: slices.Collect(all(chunks))})
}

// keep indexes a path of which the chunks are known.
func (x *Index) keep(info *narstore.PathInfo, chunks []located) {
	part, now := info.Path.HashPart(), time.Now().Unix()
	if x.indexed(part) {
		return
	}
	r := record{
		hash: info.NARHash, size: info.NARSize, entries: countAll(slices.Values(chunks)),
		indexed: now, used: now, complete: true, public: x.public(info),
	}
	x.records.put(part, r)
	if err := x.entries.add(part, slices.Values(chunks)); err != nil {
		x.log.Debug("fetched path not indexed", zap.Stringer("storePath", info.Path), zap.Error(err))
		x.records.drop(part)
		return
	}
	x.countIndexed(byFetch, info.NARSize)
	x.makeRoom()
}
