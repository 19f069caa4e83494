package nixdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/internal/follow"
)

// errMoved ends a listing whose access has been replaced.
var errMoved = errors.New("the store has been opened anew")

// Follow implements narstore.Store. New paths are told of within a poll. A
// removal or a new signature shows only in a look at all records, which takes
// about 0.4 s for 100,000, and is made so rarely that it costs less
// than 5 % of a core.
func (s *Store) Follow(ctx context.Context, f func(narstore.Update) error) error {
	w := &watcher{store: s, Follower: follow.New(f, s.log)}
	pause := func() time.Duration {
		if w.access == nil {
			return s.cfg.Poll
		}
		return w.access.pause(s.cfg.Poll)
	}
	look := func(ctx context.Context) error {
		err := w.look(ctx)
		switch {
		case err == nil:
			s.problem.Store(nil)
		case ctx.Err() == nil:
			s.problem.Store(&err)
		}
		return err
	}
	if err := w.Run(ctx, pause, look); err != nil {
		return fmt.Errorf("nixdb: follow: %w", err)
	}
	return nil
}

// watcher is the state of one Follow.
type watcher struct {
	store *Store
	*follow.Follower

	// access and mark are those that the last listing was made with.
	access access
	mark   int64
	// last is the highest row id that has been seen.
	last int64
	// due says that something has changed since the last full listing.
	due bool
}

// look finds out whether the store has changed, and tells of it.
func (w *watcher) look(ctx context.Context) error {
	var now access
	var mark int64
	err := w.store.use(ctx, func(a access) (err error) {
		now = a
		mark, err = a.mark(ctx)
		return err
	})
	if errors.Is(err, errClosed) {
		return follow.Stop{Err: err}
	}
	if err != nil {
		return err
	}
	if now != w.access {
		if !w.Pace.Due() {
			return nil
		}
		w.access, w.mark, w.last, w.due = now, mark-1, 0, true
	}
	changed := mark != w.mark
	w.due = w.due || changed
	if w.due && w.Pace.Due() {
		err = w.Paced(func() error { return w.list(ctx, true) })
		w.due = err != nil
	} else if changed {
		err = w.list(ctx, false)
	}
	switch {
	case err == nil:
		w.mark = mark
	case errors.Is(err, errMoved):
		return nil // the next look starts again
	}
	return err
}

// list goes through the store, or, if full is false, through what is new, and
// tells of what the ledger does not know.
func (w *watcher) list(ctx context.Context, full bool) error {
	c := w.access.begin(full, w.last)
	if c.complete {
		w.Ledger.Begin()
	}
	for end := false; !end; {
		var p follow.Page
		err := w.store.use(ctx, func(a access) (err error) {
			if a != w.access {
				return errMoved
			}
			p, err = a.page(ctx, c, &w.Ledger)
			return err
		})
		if err != nil {
			return err
		}
		end = p.End
		p.Complete = end && c.complete
		if err := w.Tell(p); err != nil {
			return err
		}
	}
	w.last = max(w.last, c.after)
	return nil
}
