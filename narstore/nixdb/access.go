package nixdb

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/internal/follow"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// access is one way to read what Nix knows. When it fails, it is closed and
// another is opened in its place.
type access interface {
	// String names the way, for the log.
	String() string
	info(ctx context.Context, part nix.HashPart) (*narstore.PathInfo, error)
	// mark returns a number that is different after any change.
	mark(ctx context.Context) (int64, error)
	// begin starts a listing of all paths, or, if full is false, one that may
	// pass over what an earlier one that ended at last has shown.
	begin(full bool, last int64) *cursor
	page(ctx context.Context, c *cursor, ledger *follow.Ledger) (follow.Page, error)
	// pause is how long to wait between looks, where the usual is poll.
	pause(poll time.Duration) time.Duration
	close() error
}

// cursor is where a listing stands.
type cursor struct {
	// full says that the state of every path is looked at, not only its name.
	full bool
	// complete says that every path is passed, so that what is missing has
	// been removed.
	complete bool
	// after is the last row id that was passed.
	after int64
	// names are the paths still to be looked at, where a daemon named them.
	names []nix.StorePath
	named bool
}

var (
	// errStale says that the access no longer shows the store as it is.
	errStale = errors.New("the database has been replaced or changed")
	// errUnsettled says that the database is being written to right now.
	errUnsettled = errors.New("the database is being changed")
)

// beginRows starts a listing by row id. Nix gives every new row a higher one.
func beginRows(full bool, last int64) *cursor {
	if full {
		return &cursor{full: true, complete: true}
	}
	return &cursor{after: last}
}

// openAccess follows the recipe in the package comment.
func openAccess(ctx context.Context, cfg Config) (access, error) {
	path := filepath.Join(cfg.StateDir, "db", "db.sqlite")
	l, errLive := openLive(ctx, path)
	if errLive == nil {
		return l, nil
	}
	r, errDaemon := openRemote(ctx, cfg.DaemonSocket)
	if errDaemon == nil {
		// The daemon has the database open now, and so its log is in being.
		if l, errLive = openLive(ctx, path); errLive == nil {
			_ = r.close() // it has done its work
			return l, nil
		}
		return r, nil
	}
	s, errSnapshot := openSnapshot(ctx, path)
	if errSnapshot == nil {
		return s, nil
	}
	return nil, fmt.Errorf("%s: %w", path, errors.Join(errLive, errSnapshot, errDaemon))
}
