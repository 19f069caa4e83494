// Package manifests keeps the manifests of the NARs that peers asked this node
// for. Each is computed once, on first demand, and told to whoever waits for it
// while that goes on.
package manifests

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// MaxPiece is the longest piece that Stream emits, in bytes.
const MaxPiece = 64 << 10

// Keeper computes manifests and keeps them. Its methods are safe for concurrent
// use.
type Keeper struct {
	log  *zap.Logger
	kept kept
	room *room

	mu sync.Mutex
	// computing holds the computations that callers wait for.
	computing map[nix.NARHash]*computation
}

// New returns a keeper that keeps manifests in bucket, which is its own.
func New(bucket *state.Bucket, log *zap.Logger) *Keeper {
	log = log.Named("manifests")
	return &Keeper{
		log:       log,
		kept:      kept{log: log, bucket: bucket, limit: maxKept, now: time.Now, bytes: unknown},
		room:      newRoom(),
		computing: make(map[nix.NARHash]*computation),
	}
}

// Root returns the root of the manifest of a NAR, if the manifest is kept.
func (k *Keeper) Root(h nix.NARHash) (chunk.Root, bool) {
	r, ok := k.kept.record(h)
	return r.root, ok
}

// Computing returns how many manifests are being computed.
func (k *Keeper) Computing() int { return k.room.len() }

// Get returns the encoding of the manifest of a NAR, if it is kept.
func (k *Keeper) Get(h nix.NARHash) (encoded []byte, ok bool) {
	_, ok, err := k.kept.stream(h, func(piece []byte) error {
		encoded = append(encoded, piece...)
		return nil
	})
	return encoded, ok && err == nil
}

// Stream calls emit with successive pieces of the encoding of a NAR's manifest:
// of the kept one, or of one that is computed meanwhile and is provisional until
// Stream returns its root. Where the bytes of the NAR are not those of its hash
// the error is chunk.ErrCorrupt, for all who wait for the same manifest. Where
// too many others are being computed it is a *narstore.BusyError. NARs above
// chunk.MaxNARSize are refused.
//
// A computation reads the NARs of those who wait for it and ends with the last
// of them. nar is not used after Stream has returned.
func (k *Keeper) Stream(ctx context.Context, h nix.NARHash, nar narstore.NAR, emit func(piece []byte) error) (chunk.Root, error) {
	if nar.Size() > chunk.MaxNARSize {
		return chunk.Root{}, fmt.Errorf("manifests: NAR of %d bytes is above the %d that are exchanged", nar.Size(), int64(chunk.MaxNARSize))
	}
	if root, ok, err := k.kept.stream(h, emit); ok {
		return root, err
	}
	r := &reader{nar: nar}
	c := k.join(ctx, h, r)
	defer k.leave(h, c, r)
	return c.follow(ctx, emit)
}

func emitPieces(b []byte, emit func(piece []byte) error) error {
	for len(b) > 0 {
		n := min(len(b), MaxPiece)
		if err := emit(b[:n:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// join adds a reader to the computation of its NAR's manifest, which it starts
// where there is none.
func (k *Keeper) join(ctx context.Context, h nix.NARHash, r *reader) *computation {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.computing[h]; ok {
		c.source.add(r)
		return c
	}
	c := &computation{grown: make(chan struct{})}
	c.source.add(r)
	// Not the caller's context: others may outlast it.
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	k.computing[h] = c
	go k.compute(ctx, h, r.nar.Size(), c)
	return c
}

// leave takes a reader from the computation and ends it where it was the last.
func (k *Keeper) leave(h nix.NARHash, c *computation, r *reader) {
	k.mu.Lock()
	if c.source.remove(r) == 0 {
		c.cancel()
		k.remove(h, c)
	}
	k.mu.Unlock()
	r.retire()
}

// remove keeps others from joining a computation. mu is held.
func (k *Keeper) remove(h nix.NARHash, c *computation) {
	if k.computing[h] == c {
		delete(k.computing, h)
	}
}

// compute runs a computation and keeps what it gives.
func (k *Keeper) compute(ctx context.Context, h nix.NARHash, size int64, c *computation) {
	root, err := k.build(ctx, h, size, c)
	// Whoever comes now finds it kept, or tries again.
	k.mu.Lock()
	k.remove(h, c)
	k.mu.Unlock()
	c.finish(root, err)
}

func (k *Keeper) build(ctx context.Context, h nix.NARHash, size int64, c *computation) (chunk.Root, error) {
	p := &progress{size: size}
	leave, err := k.room.enter(ctx, p)
	if err != nil {
		return chunk.Root{}, err
	}
	defer leave()
	// Another computation may have ended since the caller found nothing kept.
	if root, ok, err := k.kept.stream(h, c.grow); ok {
		return root, err
	}
	start := time.Now()
	nar := &counted{Reader: io.NewSectionReader(&c.source, 0, size), progress: p}
	m, err := chunk.Build(ctx, nar, h, size, c.grow)
	if err != nil {
		return chunk.Root{}, fmt.Errorf("manifests: NAR %s: %w", h, err)
	}
	root := chunk.Root(sha256.Sum256(c.encoded))
	k.log.Debug("computed a manifest", zap.Stringer("narHash", h), zap.Int64("narSize", size),
		zap.Int("chunks", len(m.Chunks)), zap.Duration("took", time.Since(start)))
	if len(c.encoded) > 0 {
		k.kept.put(h, root, c.encoded)
	}
	return root, nil
}
