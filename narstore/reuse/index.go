// Package reuse finds chunks of NARs that are to be fetched in the store that is
// there, so that an upgrade transfers only what has changed.
//
// A chunk of a manifest may lie in a local store path as it is, with the same
// sum; or but for the hash parts of the paths that it mentions, with the same
// masked sum. The Index knows where chunks lie, by both. A Session takes them
// from there for one NAR: it reads the bytes, puts the manifest's hash parts in
// their runs, and checks the sum. So nothing depends on the index being right:
// an entry that is wrong costs a chunk that has to be fetched.
//
// Where a reference has another name by now, chunks are tried with that too
// (Session.Guess).
//
// A relative of a path is a local path of the same name without its version: an
// older build, another version, another output. Relatives that are not indexed
// yet are while their kin is fetched. What was fetched from peers is indexed by
// its manifest, without being read, and large paths in the background.
//
// What is read here reaches Nix on this machine and nobody else. But who sends a
// manifest sees which of its chunks nobody asks for, and so that they are here:
// see Config.Public. docs/delta.md tells the whole of it.
package reuse

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// DefaultMaxBytes is how large the index may become where nothing is configured.
const DefaultMaxBytes = 128 << 20

// Config sets up an Index.
type Config struct {
	// Plain finds chunks by their sum alone, and none by the masked sum.
	Plain bool
	// MaxBytes bounds the index on the disk, in bytes; 0 is DefaultMaxBytes.
	MaxBytes int64
	// Background is how paths are indexed that nobody has asked for.
	Background Background
	// Public reports whether strangers may know that a path is here. Chunks of
	// others are not used where strangers take part. Nil: there are no strangers.
	Public func(*narstore.PathInfo) bool
	// Registerer receives metrics. Nil: none are made.
	Registerer prometheus.Registerer
}

// Buckets are where an index is kept, each its own.
type Buckets struct {
	// Chunks says where chunks lie, Paths which paths are indexed.
	Chunks, Paths *state.Bucket
}

// Index knows where chunks lie in a store. Its methods are safe for concurrent
// use.
type Index struct {
	cfg     Config
	store   narstore.Store
	log     *zap.Logger
	kin     *kin
	records *records
	entries *entries
	fetched *fetched
	learned *learned
	metrics

	// full tells Run that there are entries to be swept.
	full chan struct{}

	mu sync.Mutex
	// jobs are the paths that are being indexed, or wait to be.
	jobs    map[nix.HashPart]*job
	closed  bool
	cancels map[*Session]context.CancelFunc
	running sync.WaitGroup
	// slots bounds what is indexed at once on demand, smallSlots what is small.
	slots, smallSlots chan struct{}
}

// New returns an index of store, as far as the buckets hold one.
func New(store narstore.Store, buckets Buckets, cfg Config, log *zap.Logger) *Index {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	cfg.Background = cfg.Background.withDefaults()
	x := &Index{
		cfg:     cfg,
		store:   store,
		log:     log.Named("reuse"),
		kin:     newKin(),
		entries: &entries{bucket: buckets.Chunks, room: cfg.MaxBytes},
		fetched: newFetched(),
		learned: newLearned(),
		full:    make(chan struct{}, 1),
		jobs:    make(map[nix.HashPart]*job),
		cancels: make(map[*Session]context.CancelFunc),
		slots:   make(chan struct{}, maxJobs), smallSlots: make(chan struct{}, maxSmallJobs),
	}
	x.records = recall(buckets.Paths)
	x.metrics = newMetrics(cfg.Registerer, x.records)
	return x
}

// Run follows the store, and indexes in the background, until ctx ends.
func (x *Index) Run(ctx context.Context) error {
	g, running := errgroup.WithContext(ctx)
	settled := make(chan struct{})
	g.Go(func() error { return x.store.Follow(running, x.follower(settled)) })
	g.Go(func() error { return x.sweepAsNeeded(running) })
	g.Go(func() error { return x.indexInBackground(running, settled) })
	err := g.Wait()
	x.stop()
	return err
}

// stop ends what is indexed on demand, and waits for it.
func (x *Index) stop() {
	x.mu.Lock()
	x.closed = true
	for _, cancel := range x.cancels {
		cancel()
	}
	x.mu.Unlock()
	x.running.Wait()
}

// follower returns what is told of the store's changes. It closes settled when
// all paths are known.
func (x *Index) follower(settled chan<- struct{}) func(narstore.Update) error {
	known := false
	return func(u narstore.Update) error {
		for _, info := range u.Added {
			// What has no manifest has no relatives, and is many paths of a store.
			if info.Path.IsDerivation() || info.NARSize <= chunk.ImplicitSize {
				continue
			}
			x.kin.add(info)
			if chunks := x.fetched.take(info); chunks != nil {
				x.keep(info, chunks)
			}
		}
		for _, part := range u.Removed {
			x.gone(part)
		}
		if u.Settled && !known {
			known = true
			for _, part := range x.records.parts() {
				if !x.kin.has(part) {
					x.records.drop(part)
				}
			}
			close(settled)
		}
		return nil
	}
}

// gone forgets a path that has left the store.
func (x *Index) gone(part nix.HashPart) {
	x.forget(part)
	x.kin.remove(part)
}

// forget forgets where the chunks of a path lie. Their entries may have taken the
// place of those of relatives that were indexed before it; these are indexed
// anew when they are wanted.
func (x *Index) forget(part nix.HashPart) {
	r, ok := x.records.get(part)
	if !ok {
		return
	}
	x.records.drop(part)
	for _, other := range x.kin.familyOf(part) {
		if o, ok := x.records.get(other.part); ok && o.complete && o.indexed <= r.indexed {
			o.complete = false
			x.records.put(other.part, o)
		}
	}
}

// public reports whether strangers may know of a path.
func (x *Index) public(info *narstore.PathInfo) bool {
	return x.cfg.Public == nil || x.cfg.Public(info)
}

// sweepInterval is how often entries of paths that are gone are looked for
// where there is no lack of room.
const sweepInterval = 24 * time.Hour

// sweepAsNeeded deletes entries that lead nowhere. At the start it reads all.
func (x *Index) sweepAsNeeded(ctx context.Context) error {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		dropped, err := x.entries.sweep(ctx, x.records)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			x.log.Warn("entries of the index not swept", zap.Error(err))
		default:
			x.log.Debug("swept the index", zap.Int("dropped", dropped), zap.Int64("bytes", x.records.bytes()))
		}
		select {
		case <-x.full:
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// makeRoom drops the paths that were not used for longest where the index has
// become too large.
func (x *Index) makeRoom() {
	dropped := x.records.evict(x.cfg.MaxBytes)
	if dropped > 0 {
		x.log.Debug("index is full", zap.Int("droppedPaths", dropped))
	}
	if dropped > 0 || x.records.orphans()*entryCost > x.cfg.MaxBytes/8 {
		select {
		case x.full <- struct{}{}:
		default:
		}
	}
}

// errStopped says that the index does not run any more.
var errStopped = errors.New("reuse: the index has stopped")

// wrap names the path in an error of indexing.
func wrap(info *narstore.PathInfo, err error) error {
	return fmt.Errorf("reuse: index %s: %w", info.Path, err)
}
