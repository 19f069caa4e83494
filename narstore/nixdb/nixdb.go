// Package nixdb is a Nix store on this machine: what is valid comes from Nix's
// SQLite database, and the NARs from the files.
//
// Nothing is ever written. As an unprivileged user, too, Nix's database can be
// read in one of four ways, of which the first that works is taken:
//
//  1. Read-only, as one of Nix's own processes. In WAL mode that works only
//     while the database's -wal and -shm files exist. A connection is then kept
//     open, which keeps them in being. Changes show in `PRAGMA data_version`.
//  2. The same after a connection to the nix-daemon, which brings those files
//     into being.
//  3. As a snapshot, where nobody has the database open: without locks, but
//     with a look at the file before and after.
//  4. Through the nix-daemon alone (package daemon), several times slower, where
//     the database is not readable.
//
// Whenever a way fails, the choice is made anew. The schema is number 10, which
// all Nix from 2.0 on have. Records that are malformed are passed over with a
// warning.
package nixdb

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/internal/follow"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/nixdb/daemon"
)

const (
	// defaultPoll is cheap: asking for data_version takes 10 to 60 microseconds.
	defaultPoll = time.Second
	// openTimeout bounds the opening of the store, for which a daemon may have
	// to be started.
	openTimeout = 10 * time.Second
	// attempts is how often an operation is tried before its error counts,
	// with firstPause between, doubled each time: 0.75 s in all.
	attempts   = 5
	firstPause = 50 * time.Millisecond
)

// Config says where the parts of a Nix store are. Everything is optional.
type Config struct {
	// Root is what Nix calls the root of a local store, `local?root=DIR`: the
	// store lies in Root/nix/store. "" is "/".
	Root string
	// RealStoreDir is where the files are; "" is Root/nix/store. Whatever it is,
	// paths are named as in /nix/store.
	RealStoreDir string
	// StateDir holds db/db.sqlite; "" is Root/nix/var/nix.
	StateDir string
	// DaemonSocket is the nix-daemon's; "" is StateDir/daemon-socket/socket.
	DaemonSocket string
	// Poll is how often Follow looks for changes; 0 is a second. Where only the
	// daemon can be asked it is 30 times that.
	Poll time.Duration
}

// Store is a Nix store. It implements narstore.Store.
type Store struct {
	cfg Config
	log *zap.Logger

	// mu is held for reading through every operation on access, and for
	// writing while access is exchanged: two ways to read one database must
	// never be open at once (see snapshot).
	mu     sync.RWMutex
	access access // nil where the last one failed to open
	way    string // of the last access that opened
	closed bool
	// pace keeps those who wait for a daemon that hangs from queueing for it.
	pace    follow.Pace
	lastErr error // why there is no access

	// problem is why Follow cannot read the store, or nil.
	problem atomic.Pointer[error]
}

var _ narstore.Store = (*Store)(nil)

// errClosed ends Follow.
var errClosed = errors.New("store is closed")

// Open opens the store's database, or else a connection to its daemon.
func Open(cfg Config, log *zap.Logger) (*Store, error) {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.RealStoreDir == "" {
		cfg.RealStoreDir = filepath.Join(cfg.Root, nix.StoreDir)
	}
	if cfg.StateDir == "" {
		cfg.StateDir = filepath.Join(cfg.Root, "nix/var/nix")
	}
	if cfg.DaemonSocket == "" {
		cfg.DaemonSocket = filepath.Join(cfg.StateDir, "daemon-socket/socket")
	}
	if cfg.Poll == 0 {
		cfg.Poll = defaultPoll
	}
	s := &Store{cfg: cfg, log: log.Named("nixdb"), lastErr: errors.New("not open yet")}
	if err := s.use(context.Background(), func(access) error { return nil }); err != nil {
		return nil, fmt.Errorf("nixdb: open: %w", err)
	}
	return s, nil
}

// Problem returns why the store cannot be read at present, as far as Follow has
// found out, or nil.
func (s *Store) Problem() error {
	if p := s.problem.Load(); p != nil {
		return *p
	}
	return nil
}

// Close closes the database. NARs that are open stay so.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.access
	s.access, s.closed = nil, true
	if a == nil {
		return nil
	}
	return a.close()
}

// use runs op on the access, and again on another where that fails. op must be
// short and must not call use.
func (s *Store) use(ctx context.Context, op func(access) error) error {
	pause := firstPause
	for try := 1; ; try++ {
		used, err := s.tryUse(op)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil, errors.Is(err, errClosed), used != nil && isAnswer(err), try == attempts:
			return err
		case used != nil && isBusy(err): // the lock will soon be gone
		case s.reopen(ctx, used) == nil:
			continue
		}
		if err := follow.Wait(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
}

// tryUse runs op, or returns no access and why there is none.
func (s *Store) tryUse(op func(access) error) (access, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed:
		return nil, errClosed
	case s.access == nil:
		return nil, s.lastErr
	}
	return s.access, op(s.access)
}

// isAnswer tells errors that another try would give again from those of the
// access itself.
func isAnswer(err error) bool {
	if _, ok := errors.AsType[*malformedError](err); ok {
		return true
	}
	_, refused := errors.AsType[*daemon.Error](err)
	return refused || errors.Is(err, narstore.ErrNotFound) || errors.Is(err, errMoved)
}

// isBusy reports whether Nix holds a lock.
func isBusy(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

// reopen replaces the access that has failed, unless somebody else has already.
func (s *Store) reopen(ctx context.Context, failed access) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.access != failed {
		return nil
	}
	if failed != nil {
		s.access = nil
		s.lastErr = errors.New("closed after an error")
		if err := failed.close(); err != nil {
			s.log.Debug("closing the store's database", zap.Error(err))
		}
	}
	if !s.pace.Due() {
		return s.lastErr
	}
	limited, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	start := time.Now()
	a, err := openAccess(limited, s.cfg)
	if err != nil {
		if ctx.Err() == nil { // else it is no verdict on the store
			s.lastErr = err
			s.pace.Done(time.Since(start))
		}
		return err
	}
	s.access = a
	if a.String() != s.way {
		s.way = a.String()
		s.log.Info("reading the Nix store", zap.String("from", s.way), zap.String("stateDir", s.cfg.StateDir))
	}
	return nil
}

// Info implements narstore.Store.
func (s *Store) Info(ctx context.Context, part nix.HashPart) (info *narstore.PathInfo, err error) {
	err = s.use(ctx, func(a access) error {
		info, err = a.info(ctx, part)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("nixdb: %s: %w", part, err)
	}
	return info, nil
}

// Open implements narstore.Store. A path whose files do not make a NAR of the
// registered size is reported as damaged.
func (s *Store) Open(ctx context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	archive, damage := nar.Open(ctx, filepath.Join(s.cfg.RealStoreDir, info.Path.BaseName()))
	if damage == nil && archive.Size() != info.NARSize {
		damage = fmt.Errorf("%w: they make a NAR of %d bytes, registered are %d", narstore.ErrChanged, archive.Size(), info.NARSize)
	}
	// Asked after opening, since Nix takes a path out of the database before it
	// deletes files, and puts it in only when all are there.
	now, err := s.Info(ctx, info.Path.HashPart())
	switch {
	case err != nil:
	case now.Path != info.Path || now.NARHash != info.NARHash || now.NARSize != info.NARSize:
		err = fmt.Errorf("nixdb: %s has been replaced by another build: %w", info.Path, narstore.ErrNotFound)
	case damage != nil:
		err = fmt.Errorf("nixdb: %s is damaged: %w", info.Path, damage)
	default:
		return archive, nil
	}
	if archive != nil {
		err = errors.Join(err, archive.Close())
	}
	return nil, err
}
