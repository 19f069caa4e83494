package share

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// goneTimeout bounds how long the store is asked about a path that could not be
// read.
const goneTimeout = 2 * time.Second

// gone looks after a path that could not be opened or read: if it has left the
// store, or its files have changed, it leaves the catalog at once, so that peers
// are no longer told that it is here and it is no longer announced. It comes back
// when the store tells of it again or its owner shares it again.
func (c *Catalog) gone(part nix.HashPart, hash nix.NARHash, cause error) {
	changed, unreadable := errors.Is(cause, narstore.ErrChanged), errors.Is(cause, fs.ErrPermission)
	if !changed && !unreadable && !errors.Is(cause, narstore.ErrNotFound) {
		return
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	// The store is asked while nothing is applied: a path that has come back since
	// stays.
	ctx, cancel := context.WithTimeout(context.Background(), goneTimeout)
	defer cancel()
	info, err := c.store.Info(ctx, part)
	switch {
	case errors.Is(err, narstore.ErrNotFound) || err == nil && info.NARHash != hash:
		if c.discard(part, hash) {
			c.log.Info("a path that peers asked for has left the store", zap.Stringer("hashPart", part))
		}
	case err == nil && unreadable && c.noteDamage(info.Path):
		c.log.Error("files of a store path that is shared cannot be read", zap.Stringer("storePath", info.Path), zap.Error(cause))
	case err == nil && changed && c.discard(part, hash):
		c.noteDamage(info.Path)
		c.log.Error("files of a store path are gone or changed, and it is no longer shared: repair it, then share it again",
			zap.Stringer("storePath", info.Path),
			zap.String("repair", "nix-store --repair-path "+info.Path.String()),
			zap.String("shareAgain", "p2pctl provide "+info.Path.String()),
			zap.Error(cause))
	}
}

// maxDamaged bounds how many damaged paths the owner is told of.
const maxDamaged = 16

// Damaged returns paths, 16 at most, whose files turned out to be gone, changed, or
// not readable, until the store tells of them anew or their owner shares them again.
func (c *Catalog) Damaged() []nix.StorePath {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.SortedFunc(maps.Values(c.damaged), nix.StorePath.Compare)
}

// noteDamage notes a damaged path for its owner, and reports whether it is new.
func (c *Catalog) noteDamage(path nix.StorePath) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.damaged[path.HashPart()]; known || len(c.damaged) >= maxDamaged {
		return false
	}
	c.damaged[path.HashPart()] = path
	return true
}

// discard takes this very build of a path out of the catalog, and reports
// whether it was there; c.changing is held.
func (c *Catalog) discard(part nix.HashPart, hash nix.NARHash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.index.find(part)
	if at == none || c.index.rows[at].hash != hash {
		return false
	}
	c.generation++
	c.drop(part)
	c.wake()
	return true
}
