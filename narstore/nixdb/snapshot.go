package nixdb

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/internal/follow"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// clockTick is longer than the step in which file systems count time. A file
// changed within the last one may change again without its time showing it.
const clockTick = 50 * time.Millisecond

// snapshot reads a database that nobody has open, without a lock. The database
// is opened anew for every operation, and the file's stat before and after
// shows whether the operation's result counts. Never more than that: closing
// such a connection would drop the locks of a live one to the same file (by the
// rules of POSIX locks).
type snapshot struct {
	path string
	file fs.FileInfo
}

func openSnapshot(ctx context.Context, path string) (*snapshot, error) {
	file, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	s := &snapshot{path: path, file: file}
	// Opening reads, too: it proves that the file can be read as it is.
	if err := s.with(ctx, func(*sql.Conn) error { return nil }); err != nil {
		return nil, err
	}
	return s, nil
}

// check returns errStale if anything has been written since s was opened.
func (s *snapshot) check() error {
	for _, log := range []string{"-wal", "-journal"} {
		if info, err := os.Stat(s.path + log); err == nil && (log == "-wal" || info.Size() > 0) {
			return errStale
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	file, err := os.Stat(s.path)
	switch {
	case err != nil:
		return err
	case !os.SameFile(file, s.file), !file.ModTime().Equal(s.file.ModTime()), file.Size() != s.file.Size():
		return errStale
	case time.Since(file.ModTime()).Abs() < clockTick:
		return errUnsettled
	}
	return nil
}

func (s *snapshot) with(ctx context.Context, f func(*sql.Conn) error) error {
	if err := s.check(); err != nil {
		return err
	}
	db, err := openDatabase(ctx, s.path, modeSnapshot)
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	err = f(conn)
	// What was read of a file that is being written to may be anything, and
	// so may the error.
	if stale := s.check(); stale != nil {
		return stale
	}
	return err
}

func (s *snapshot) String() string { return "snapshot of the database" }

// mark need not tell of changes, as every change makes s stale.
func (s *snapshot) mark(context.Context) (int64, error) { return 0, s.check() }

func (s *snapshot) info(ctx context.Context, part nix.HashPart) (info *narstore.PathInfo, err error) {
	err = s.with(ctx, func(conn *sql.Conn) error {
		info, err = readInfo(ctx, conn, part)
		return err
	})
	return info, err
}

func (s *snapshot) begin(full bool, last int64) *cursor { return beginRows(full, last) }

func (s *snapshot) page(ctx context.Context, c *cursor, ledger *follow.Ledger) (p follow.Page, err error) {
	err = s.with(ctx, func(conn *sql.Conn) error {
		p, err = readPage(ctx, conn, c, ledger)
		return err
	})
	return p, err
}

func (s *snapshot) pause(poll time.Duration) time.Duration { return poll }

func (s *snapshot) close() error { return nil }
