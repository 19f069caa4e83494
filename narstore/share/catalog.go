package share

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// keeper keeps manifests; it is *manifests.Keeper.
type keeper interface {
	Root(h nix.NARHash) (chunk.Root, bool)
	// Stream reads nar only where the manifest is not kept, and not after it
	// has returned. The error is chunk.ErrCorrupt where the bytes do not match
	// h, be they those of nar or of another NAR with the same hash.
	Stream(ctx context.Context, h nix.NARHash, nar narstore.NAR, emit func([]byte) error) (chunk.Root, error)
}

// bucket persists marks; it is *state.Bucket.
type bucket interface {
	Put(key, value []byte, ttl time.Duration) error
	Delete(key []byte) error
	Each(ctx context.Context, f func(key, value []byte) error) error
}

// Catalog is the set of a store's paths that may leave the machine. It knows
// nothing until Run has read the store. All methods are safe for concurrent
// use.
type Catalog struct {
	store  narstore.Store
	policy atomic.Pointer[Policy]
	keeper keeper
	bucket bucket
	log    *zap.Logger

	// opened are the NARs that are being read.
	opened opened

	// changing is held while the contents change, and taken before mu.
	changing sync.Mutex

	mu    sync.RWMutex
	index index
	rule  rule
	// generation counts the changes of index.
	generation uint32
	settled    bool
	// awaited holds, until the store has been read, who refers to paths that
	// have not come yet.
	awaited   map[nix.HashPart]referrers
	marks     map[nix.HashPart]mark
	followers map[*follower]struct{}
	// inspected holds the paths that inspect is reading.
	inspected map[nix.HashPart]struct{}
	// damaged holds those of Damaged.
	damaged map[nix.HashPart]nix.StorePath

	// suspects are for Run to read.
	suspects chan suspect
}

// New returns an empty catalog of the shareable paths in store. Marks on
// withdrawn and on corrupt paths are kept in marks.
func New(store narstore.Store, policy *Policy, keeper keeper, marks bucket, log *zap.Logger) *Catalog {
	c := &Catalog{
		store:     store,
		rule:      rule{changed: make(chan struct{})},
		keeper:    keeper,
		bucket:    marks,
		log:       log.Named("share"),
		opened:    opened{nars: make(map[Key]*openNAR)},
		awaited:   make(map[nix.HashPart]referrers),
		marks:     make(map[nix.HashPart]mark),
		followers: make(map[*follower]struct{}),
		inspected: make(map[nix.HashPart]struct{}),
		damaged:   make(map[nix.HashPart]nix.StorePath),
		suspects:  make(chan suspect, maxSuspects),
	}
	c.policy.Store(policy)
	return c
}

// Run reads the store into the catalog and follows its changes until ctx ends.
// It runs once.
func (c *Catalog) Run(ctx context.Context) error {
	if err := c.loadMarks(ctx); err != nil {
		return err
	}
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return c.readSuspects(ctx) })
	running.Go(func() error { return c.follow(ctx) })
	return running.Wait()
}

// follow follows the store, from its beginning wherever the rule has changed.
func (c *Catalog) follow(ctx context.Context) error {
	for {
		number, changed := c.ruleNow()
		err := c.followStore(ctx, number, changed)
		if again, _ := c.ruleNow(); again == number || ctx.Err() != nil {
			return err
		}
	}
}

// apply brings a change of the store into the catalog, in a listing that has begun
// under the rule with this number.
func (c *Catalog) apply(ctx context.Context, u narstore.Update, number uint64) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	policy := c.policy.Load()
	// Signatures are verified before mu is taken: 1,000 of them take 60 ms.
	shareable := make([]bool, len(u.Added))
	for i, info := range u.Added {
		if err := ctx.Err(); err != nil {
			return err
		}
		shareable[i] = policy.Check(info) == nil
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	for _, part := range u.Removed {
		c.drop(part)
		delete(c.damaged, part)
	}
	for i, info := range u.Added {
		if shareable[i] && c.marks[info.Path.HashPart()] == "" {
			c.put(info)
			delete(c.damaged, info.Path.HashPart())
		} else {
			c.drop(info.Path.HashPart())
		}
	}
	for _, info := range u.Added {
		c.noteReferences(info)
	}
	if u.Settled && number == c.rule.number && (!c.settled || c.rule.listing) {
		c.sweep()
		c.settled, c.awaited, c.rule.listing = true, nil, false
		c.log.Info("store read", zap.Int("shareablePaths", c.index.len))
	}
	c.wake()
	return nil
}

// put enters a path; c.mu is held.
func (c *Catalog) put(info *narstore.PathInfo) {
	key := Key{HashPart: info.Path.HashPart(), NARHash: info.NARHash, NARSize: info.NARSize}
	by := c.awaited[key.HashPart]
	delete(c.awaited, key.HashPart)
	if at := c.index.find(key.HashPart); at != none {
		r := &c.index.rows[at]
		if r.hash == key.NARHash && r.size == key.NARSize {
			r.doubtful, r.unlisted = false, false
			return
		}
		by = r.referrers
		c.drop(key.HashPart)
	}
	c.index.add(key, c.generation, by)
}

// noteReferences notes what a path of the store refers to, so that the roots are
// known; c.mu is held. Nothing is taken back: a path whose last referrer goes is
// found to be a root when the catalog is next made.
func (c *Catalog) noteReferences(info *narstore.PathInfo) {
	if info.Path.IsDerivation() {
		return // It refers to what built a path, and is kept with it by accident.
	}
	by := unshared
	if c.index.find(info.Path.HashPart()) != none {
		by = shared
	}
	for _, ref := range info.References {
		part := ref.HashPart()
		if ref == info.Path {
			continue
		}
		at := c.index.find(part)
		if at == none {
			if c.awaited != nil {
				c.awaited[part] |= by
			}
			continue
		}
		r := &c.index.rows[at]
		if was := *r; (was.referrers | by).root() != was.root() {
			for f := range c.followers {
				f.alter(at, &was)
			}
			r.since = c.generation
		}
		r.referrers |= by
	}
}

// drop takes out a path, and reports whether it was there; c.mu is held.
func (c *Catalog) drop(part nix.HashPart) bool {
	at := c.index.find(part)
	if at == none {
		return false
	}
	for f := range c.followers {
		f.forget(at, &c.index.rows[at])
	}
	c.index.remove(at)
	return true
}

// Len returns the number of shareable paths.
func (c *Catalog) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.index.len
}

// Example returns a shareable path with a small NAR, of those that are looked at
// first; false where there is none.
func (c *Catalog) Example() (Key, bool) {
	const enough = 1000
	c.mu.RLock()
	defer c.mu.RUnlock()
	var example Key
	seen := 0
	for i := range c.index.rows {
		r := &c.index.rows[i]
		if r.since == 0 {
			continue
		}
		if seen == 0 || r.size < example.NARSize {
			example = r.key()
		}
		if seen++; seen == enough {
			break
		}
	}
	return example, seen > 0
}

// Largest returns up to n shareable paths, those with the largest NARs.
func (c *Catalog) Largest(n int) []Key {
	c.mu.RLock()
	keys := make([]Key, 0, c.index.len)
	for i := range c.index.rows {
		if r := &c.index.rows[i]; r.since != 0 && !r.doubtful {
			keys = append(keys, r.key())
		}
	}
	c.mu.RUnlock()
	slices.SortFunc(keys, func(a, b Key) int { return cmp.Compare(b.NARSize, a.NARSize) })
	return keys[:min(n, len(keys))]
}

// Held reports whether this node provides a NAR and, where it is known already,
// the root of its manifest.
func (c *Catalog) Held(h nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	if len(c.candidates(h, 1)) == 0 {
		return chunk.Root{}, false, false
	}
	root, rootKnown = c.keeper.Root(h)
	return root, rootKnown, true
}

// Size returns the size of a NAR that this node provides, in bytes.
func (c *Catalog) Size(h nix.NARHash) (size int64, held bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for at := range c.index.withHash(h) {
		return c.index.rows[at].size, true
	}
	return 0, false
}

// candidates returns up to limit paths with this NAR hash.
func (c *Catalog) candidates(h nix.NARHash, limit int) []nix.HashPart {
	parts, doubtful := c.rowsOf(h, limit)
	if len(doubtful) > 0 {
		for _, part := range doubtful {
			c.judge(part, h)
		}
		parts, _ = c.rowsOf(h, limit)
	}
	return parts
}

// rowsOf returns up to limit paths with this NAR hash, and as many that are still
// to be judged.
func (c *Catalog) rowsOf(h nix.NARHash, limit int) (parts, doubtful []nix.HashPart) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for at := range c.index.withHash(h) {
		switch r := &c.index.rows[at]; {
		case !r.doubtful:
			parts = append(parts, r.part)
		case len(doubtful) < limit:
			doubtful = append(doubtful, r.part)
		}
		if len(parts) == limit {
			break
		}
	}
	return parts, doubtful
}

// Narinfo returns the record of a shareable path, with the signatures that make
// it so and no others. For every other path, and for none, the error is
// narstore.ErrNotFound.
func (c *Catalog) Narinfo(ctx context.Context, part nix.HashPart) (*narinfo.Info, error) {
	_, record, err := c.lookup(ctx, part)
	return record, err
}

// lookup reads a path of the catalog from the store and applies the policy
// again, to what is true now.
func (c *Catalog) lookup(ctx context.Context, part nix.HashPart) (*narstore.PathInfo, *narinfo.Info, error) {
	c.mu.RLock()
	at := c.index.find(part)
	c.mu.RUnlock()
	if at == none {
		return nil, nil, narstore.ErrNotFound
	}
	info, err := c.store.Info(ctx, part)
	if errors.Is(err, narstore.ErrNotFound) {
		return nil, nil, narstore.ErrNotFound
	} else if err != nil {
		return nil, nil, err
	}
	record, err := c.policy.Load().record(info)
	if err != nil {
		// The store has changed and its watcher is about to tell. Why the path
		// is no longer shareable is none of the asker's business.
		return nil, nil, narstore.ErrNotFound
	}
	return info, record, nil
}

// maxCandidates bounds how many paths with the same NAR hash are tried. More
// than one fails only while the store removes paths.
const maxCandidates = 8

// Open returns the NAR of a shareable path with this hash. For every other
// hash the error is narstore.ErrNotFound.
func (c *Catalog) Open(ctx context.Context, h nix.NARHash) (nar narstore.NAR, err error) {
	err = c.first(ctx, h, func(info *narstore.PathInfo) error {
		nar, err = c.open(ctx, info)
		return err
	})
	return nar, err
}

// open opens the NAR of a path.
func (c *Catalog) open(ctx context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	key := Key{HashPart: info.Path.HashPart(), NARHash: info.NARHash, NARSize: info.NARSize}
	return c.opened.use(ctx, key,
		func(ctx context.Context) (narstore.NAR, error) { return c.openChecked(ctx, info) },
		func(err error) { c.gone(key.HashPart, key.NARHash, err) })
}

// openChecked opens the NAR of a path, checking what no manifest will: none is
// ever computed of a NAR of up to chunk.ImplicitSize.
func (c *Catalog) openChecked(ctx context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	nar, err := c.store.Open(ctx, info)
	if err == nil {
		c.suspectWritten(nar, info)
	}
	if err != nil || info.NARSize > chunk.ImplicitSize {
		return nar, err
	}
	if err := verify(ctx, nar, info); err != nil {
		c.markIfCorrupt(info, err)
		return nil, errors.Join(err, nar.Close())
	}
	return nar, nil
}

// first calls use with the shareable paths of a NAR hash until it succeeds. Those
// that turn out to have gone leave the catalog.
func (c *Catalog) first(ctx context.Context, h nix.NARHash, use func(*narstore.PathInfo) error) error {
	failed := narstore.ErrNotFound
	for _, part := range c.candidates(h, maxCandidates) {
		info, _, err := c.lookup(ctx, part)
		if err == nil && info.NARHash != h {
			err = narstore.ErrNotFound
		}
		if err == nil {
			err = use(info)
		}
		if err == nil {
			return nil
		}
		c.gone(part, h, err)
		if !errors.Is(err, narstore.ErrNotFound) {
			failed = err
		}
	}
	return failed
}

// Manifest passes the pieces of a NAR's manifest to emit, and returns its root
// in the end. For a NAR that is not shareable the error is
// narstore.ErrNotFound. If the bytes on the disk turn out to be others than
// those that were signed the error is chunk.ErrCorrupt; the path leaves the
// catalog for good, and its owner is told in the log.
func (c *Catalog) Manifest(ctx context.Context, h nix.NARHash, emit func([]byte) error) (chunk.Root, error) {
	var info *narstore.PathInfo
	err := c.first(ctx, h, func(candidate *narstore.PathInfo) error {
		info = candidate
		return nil
	})
	if err != nil {
		return chunk.Root{}, err
	}
	nar := newLazyNAR(info.NARSize, func() (narstore.NAR, error) {
		// Opening is short, and others may wait for this NAR too.
		nar, err := c.open(context.WithoutCancel(ctx), info)
		c.gone(info.Path.HashPart(), h, err)
		return nar, err
	})
	root, err := c.keeper.Stream(ctx, h, nar, func(piece []byte) error {
		if len(c.candidates(h, 1)) == 0 {
			return narstore.ErrNotFound // it may have been withdrawn since
		}
		return emit(piece)
	})
	if errors.Is(err, chunk.ErrCorrupt) {
		c.inspect(ctx, nar, info)
	}
	return root, errors.Join(err, nar.Close())
}
