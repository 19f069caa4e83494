package routing

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	mh "github.com/multiformats/go-multihash"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// maxSightings bounds how many lookups are remembered until what they looked for
// is in the catalog: some closures.
const maxSightings = 16384

// sightings remembers how many providers the latest lookups have found.
type sightings struct {
	mu sync.Mutex
	// latest holds up to half of maxSightings, older the same number before.
	latest, older map[cid.Cid]int
}

func (s *sightings) note(key cid.Cid, providers int) {
	if providers == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil || len(s.latest) >= maxSightings/2 {
		s.latest, s.older = make(map[cid.Cid]int), s.latest
	}
	s.latest[key] = providers
}

func (s *sightings) of(key cid.Cid) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.latest[key]; ok {
		return n
	}
	return s.older[key]
}

// rarity knows how many others provide the NARs in the catalog, as far as this
// node has looked them up itself. It keeps that on disk: after a restart every
// key must be worth what it was, or others would be announced. Run's follower
// alone uses it.
type rarity struct {
	sightings *sightings
	store     ds.Datastore
	kept      map[nix.NARHash]int
}

// load reads what an earlier run has kept.
func (r *rarity) load(ctx context.Context) error {
	r.kept = make(map[nix.NARHash]int)
	for entry, err := range ds.QueryIter(ctx, r.store, query.Query{}) {
		if err != nil {
			return fmt.Errorf("routing: %w", err)
		}
		key, err := cid.Decode(ds.RawKey(entry.Key).Name())
		if err != nil || len(entry.Value) != 1 {
			continue // Not ours, or damaged: it costs a place in the order.
		}
		if sum, err := mh.Decode(key.Hash()); err == nil && len(sum.Digest) == len(nix.NARHash{}) {
			r.kept[nix.NARHash(sum.Digest)] = int(entry.Value[0])
		}
	}
	return nil
}

// learn takes over what lookups have found of NARs that have come.
func (r *rarity) learn(ctx context.Context, keys []share.Key) error {
	for _, k := range keys {
		key := ContentKey(k.NARHash)
		n := min(r.sightings.of(key), math.MaxUint8)
		if n == 0 || n == r.kept[k.NARHash] {
			continue
		}
		r.kept[k.NARHash] = n
		if err := r.store.Put(ctx, ds.NewKey(key.String()), []byte{byte(n)}); err != nil {
			return fmt.Errorf("routing: %w", err)
		}
	}
	return nil
}

// keep forgets the NARs for which held is false.
func (r *rarity) keep(ctx context.Context, held func(nix.NARHash) bool) error {
	for h := range r.kept {
		if held(h) {
			continue
		}
		delete(r.kept, h)
		if err := r.store.Delete(ctx, ds.NewKey(ContentKey(h).String())); err != nil {
			return fmt.Errorf("routing: %w", err)
		}
	}
	return nil
}

// of is the number of other providers that are known.
func (r *rarity) of(h nix.NARHash) int { return r.kept[h] }
