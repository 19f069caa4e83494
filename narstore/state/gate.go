package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// reserve is what the disk must have left for the database to be written to,
	// in bytes. Badger writes to mapped memory: where the disk has no room for a
	// page of it the kernel ends the process. What was written before is still to be
	// moved, to tables of 8 MiB and once more when they are merged.
	reserve = 64 << 20
	// openReserve is what it takes to open a database: what the last process left in
	// its log becomes a table.
	openReserve = 24 << 20
)

// ErrClosedToWrites says that nothing is written for now, for a reason that Problem
// tells. What there is can be read.
var ErrClosedToWrites = errors.New("state: the database is not written to")

// gate says whether the database may be written to.
type gate struct {
	dir string
	log *zap.Logger
	// folder is dir as it was opened.
	folder fs.FileInfo
	// forEver is why it is closed until the next start, if it is.
	forEver error

	mu     sync.Mutex
	closed error
}

// pass returns an error that is ErrClosedToWrites where nothing is to be written.
func (g *gate) pass() error {
	if err := g.state(); err != nil {
		return fmt.Errorf("%w: %w", ErrClosedToWrites, err)
	}
	return nil
}

// state returns why the gate is closed, or nil. It looks at the disk each time, which
// takes two microseconds: others may fill it up at any moment.
func (g *gate) state() error {
	if g.forEver != nil {
		return g.forEver
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.closed
	g.closed = g.look()
	switch {
	case g.closed != nil && was == nil:
		g.log.Warn("nothing more is kept for now: what is learned meanwhile is forgotten at the next start", zap.Error(g.closed))
	case g.closed == nil && was != nil:
		g.log.Info("what is learned is kept again")
	}
	return g.closed
}

// look returns what keeps the folder from being written to.
func (g *gate) look() error {
	now, err := os.Stat(g.dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, g.folder) {
		return fmt.Errorf("%s was removed or replaced while it was open: restart nar-p2pd", g.dir)
	}
	if err != nil {
		return err
	}
	return room(g.dir, reserve)
}

// room returns an error where the disk has less than least bytes left. What cannot
// be found out is left to whoever writes.
func room(dir string, least int64) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return nil //nolint:nilerr // As the comment says.
	}
	if left := int64(disk.Bavail) * int64(disk.Bsize); left < least { //nolint:unconvert // The types differ between systems.
		return fmt.Errorf("%s has %d MiB left, less than %d MiB", dir, left>>20, least>>20)
	}
	return nil
}

// roomToOpen is room for the database in dir, which there may not be yet.
func roomToOpen(dir string) error { return room(filepath.Dir(dir), openReserve) }

// shared is a datastore that its users cannot close, and that is written to only
// while the gate is open.
type shared struct {
	ds.Batching

	gate *gate
}

// Close does nothing: the DB closes it.
func (shared) Close() error { return nil }

// Put implements ds.Datastore.
func (s shared) Put(ctx context.Context, key ds.Key, value []byte) error {
	if err := s.gate.pass(); err != nil {
		return err
	}
	return s.Batching.Put(ctx, key, value)
}

// Delete implements ds.Datastore.
func (s shared) Delete(ctx context.Context, key ds.Key) error {
	if err := s.gate.pass(); err != nil {
		return err
	}
	return s.Batching.Delete(ctx, key)
}

// Batch implements ds.Batching. A batch that has become large is written before its
// end, so every part of it has to pass.
func (s shared) Batch(ctx context.Context) (ds.Batch, error) {
	if err := s.gate.pass(); err != nil {
		return nil, err
	}
	b, err := s.Batching.Batch(ctx)
	return gatedBatch{b, s.gate}, err
}

type gatedBatch struct {
	ds.Batch

	gate *gate
}

// Put implements ds.Batch.
func (b gatedBatch) Put(ctx context.Context, key ds.Key, value []byte) error {
	if err := b.gate.pass(); err != nil {
		return err
	}
	return b.Batch.Put(ctx, key, value)
}

// Commit implements ds.Batch.
func (b gatedBatch) Commit(ctx context.Context) error {
	if err := b.gate.pass(); err != nil {
		return err
	}
	return b.Batch.Commit(ctx)
}
