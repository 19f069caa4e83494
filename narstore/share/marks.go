package share

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// mark says why one path is not shared although the policy allows it; "" where
// there is no mark. The bucket holds the marks by hash part.
type mark string

const (
	// withdrawn was set by the owner.
	withdrawn mark = "withdrawn"
	// corrupt was set by the node, which found other bytes than were signed.
	corrupt mark = "corrupt"
)

func (c *Catalog) loadMarks(ctx context.Context) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	err := c.bucket.Each(ctx, func(key, value []byte) error {
		if len(key) != len(nix.HashPart{}) {
			return fmt.Errorf("key of %d bytes", len(key))
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.marks[nix.HashPart(key)] = mark(value)
		return nil
	})
	if err != nil {
		// Without its marks the catalog must not open.
		return fmt.Errorf("share: read withdrawn paths: %w", err)
	}
	return nil
}

// setMark takes a path out of the catalog, at once even where the mark cannot
// be kept, and reports whether it was there.
func (c *Catalog) setMark(path nix.StorePath, m mark) (dropped bool, err error) {
	part := path.HashPart()
	c.changing.Lock()
	defer c.changing.Unlock()
	c.mu.Lock()
	c.marks[part] = m
	c.generation++
	dropped = c.drop(part)
	c.wake()
	c.mu.Unlock()
	if err := c.bucket.Put(part[:], []byte(m), 0); err != nil {
		return dropped, fmt.Errorf("share: keep %s %s: %w", path, m, err)
	}
	return dropped, nil
}

// Withdraw stops sharing a path until Restore, whether or not it is in the
// store now.
func (c *Catalog) Withdraw(path nix.StorePath) error {
	_, err := c.setMark(path, withdrawn)
	return err
}

// Restore takes back Withdraw, and the mark on a path that was corrupt and has
// been repaired. The error says why the path is still not shared, if so.
func (c *Catalog) Restore(ctx context.Context, path nix.StorePath) error {
	part := path.HashPart()
	c.changing.Lock()
	defer c.changing.Unlock()
	if err := c.bucket.Delete(part[:]); err != nil {
		return fmt.Errorf("share: restore %s: %w", path, err)
	}
	c.mu.Lock()
	delete(c.marks, part)
	delete(c.damaged, part)
	c.mu.Unlock()
	info, err := c.valid(ctx, path)
	if err != nil {
		return err
	}
	if err := c.policy.Load().Check(info); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.put(info)
	c.wake()
	return nil
}

// Explain returns nil if the path is shared, or else the reason why not. It is
// for the owner; the reason must not reach a peer.
func (c *Catalog) Explain(ctx context.Context, path nix.StorePath) error {
	info, err := c.valid(ctx, path)
	if err != nil {
		return err
	}
	if err := c.policy.Load().Check(info); err != nil {
		return err
	}
	c.mu.RLock()
	m := c.marks[path.HashPart()]
	c.mu.RUnlock()
	if m != "" {
		return fmt.Errorf("share: %s: it is marked as %s", path, m)
	}
	return nil
}

// valid returns what the store knows of this very path.
func (c *Catalog) valid(ctx context.Context, path nix.StorePath) (*narstore.PathInfo, error) {
	info, err := c.store.Info(ctx, path.HashPart())
	if err == nil && info.Path != path {
		err = narstore.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("share: %s: %w", path, err)
	}
	return info, nil
}

// inspect reads a path whose manifest came out corrupt once more, alone: those
// may have been the bytes of another path with the same NAR hash, and the mark
// is for good. Of those who find the same path corrupt at once only one reads.
func (c *Catalog) inspect(ctx context.Context, nar narstore.NAR, info *narstore.PathInfo) {
	part := info.Path.HashPart()
	c.mu.Lock()
	_, busy := c.inspected[part]
	if busy || c.index.find(part) == none {
		c.mu.Unlock()
		return
	}
	c.inspected[part] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.inspected, part)
	}()
	c.markIfCorrupt(info, verify(ctx, nar, info))
}

// markIfCorrupt marks a path if that is what err says, and tells its owner.
func (c *Catalog) markIfCorrupt(info *narstore.PathInfo, err error) {
	if !errors.Is(err, chunk.ErrCorrupt) {
		return
	}
	dropped, markErr := c.setMark(info.Path, corrupt)
	if dropped {
		c.noteDamage(info.Path)
		c.log.Error("store path is corrupt and no longer shared: repair it, then share it again",
			zap.Stringer("storePath", info.Path),
			zap.String("repair", "nix-store --repair-path "+info.Path.String()),
			zap.String("shareAgain", "p2pctl provide "+info.Path.String()),
			zap.Error(err))
	}
	if markErr != nil {
		c.log.Error("corrupt path will be shared again after a restart", zap.Error(markErr))
	}
}
