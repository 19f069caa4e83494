package share

import "context"

// maxAdded bounds the keys in one Change, so that a store of 100,000 paths is
// never copied at once.
const maxAdded = 1024

// Change tells of changes in the catalog since the Change before.
type Change struct {
	// Removed comes first: a path may be in both lists, as one does that becomes a
	// root, or is one no more.
	Removed []Key
	Added   []Key
	// Settled is true from the Change on that completes the first listing.
	Settled bool
}

// follower is how far one call of Follow has come. It goes through the rows of
// the index again and again, and in each pass tells of those that were added
// since the pass before; so it needs no queue of its own for them, however slow
// its reader is.
type follower struct {
	// told is the generation up to which all rows have been told.
	told uint32
	// pass is the generation up to which the present pass tells, and at the
	// row that it has come to.
	pass uint32
	at   int32
	// removed holds keys that were told and have gone: each at most once.
	removed []Key
	// altered holds rows that were told as roots, or as none, and are to be told
	// anew since that has changed; with what was told.
	altered map[int32]bool
	settled bool
	// wake holds one token while there may be something to tell.
	wake chan struct{}
}

// forget takes note that a row goes; the catalog's mu is held.
func (f *follower) forget(at int32, r *row) {
	key := r.key()
	if root, altered := f.altered[at]; altered {
		delete(f.altered, at)
		key.Root = root
	} else if !f.knows(at, r) {
		return
	}
	f.removed = append(f.removed, key)
}

// alter takes note that a row, which is given as it was, becomes a root or ceases
// to be one. It is told in one Change that the old key goes and the new one comes:
// else readers would take the path for gone until the pass reaches it. The
// catalog's mu is held.
func (f *follower) alter(at int32, was *row) {
	if _, altered := f.altered[at]; altered || !f.knows(at, was) {
		return
	}
	if f.altered == nil {
		f.altered = make(map[int32]bool)
	}
	f.altered[at] = was.root()
}

// knows reports whether a row has been told as it is.
func (f *follower) knows(at int32, r *row) bool {
	return r.since <= f.told || r.since <= f.pass && at < f.at
}

// wake tells the followers of a change; c.mu is held.
func (c *Catalog) wake() {
	for f := range c.followers {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// Follow calls f with all keys of the catalog, in batches, then with every
// change, until ctx ends or f returns an error, which it returns. However long
// f takes, the catalog does not wait for it; what changes meanwhile is told
// together.
func (c *Catalog) Follow(ctx context.Context, f func(Change) error) error {
	me := &follower{wake: make(chan struct{}, 1)}
	c.mu.Lock()
	c.followers[me] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.followers, me)
	}()
	settled := false
	for {
		change, more := c.next(me)
		if len(change.Removed)+len(change.Added) > 0 || change.Settled != settled {
			settled = change.Settled
			if err := f(change); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-me.wake:
		}
	}
}

// next returns what there is to tell now, and whether there is more.
func (c *Catalog) next(f *follower) (change Change, more bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	change.Removed, f.removed = f.removed, nil
	if f.at == 0 {
		f.pass = c.generation
	}
	rows := c.index.rows
	for ; int(f.at) < len(rows) && len(change.Added) < maxAdded; f.at++ {
		r := &rows[f.at]
		if r.since <= f.told || r.since > f.pass {
			continue
		}
		key := r.key()
		if root, altered := f.altered[f.at]; altered {
			delete(f.altered, f.at)
			if root == key.Root {
				continue // It is again as it was.
			}
			old := key
			old.Root = root
			change.Removed = append(change.Removed, old)
		}
		change.Added = append(change.Added, key)
	}
	if len(f.altered) == 0 {
		f.altered = nil // A map never shrinks.
	}
	if int(f.at) == len(rows) {
		f.told, f.at = f.pass, 0
	}
	more = f.at != 0 || f.told != c.generation
	f.settled = f.settled || c.settled && !more
	change.Settled = f.settled
	return change, more
}
