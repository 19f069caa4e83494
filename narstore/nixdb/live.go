package nixdb

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/internal/follow"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// live reads the database as Nix's other processes do.
type live struct {
	path string
	file fs.FileInfo
	db   *sql.DB

	mu sync.Mutex
	// watch is always the same connection, since each counts by itself.
	watch *sql.Conn
}

func openLive(ctx context.Context, path string) (*live, error) {
	file, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	db, err := openDatabase(ctx, path, modeLive)
	if err != nil {
		return nil, err
	}
	watch, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &live{path: path, file: file, db: db, watch: watch}, nil
}

func (l *live) String() string { return "database" }

func (l *live) with(ctx context.Context, f func(*sql.Conn) error) error {
	if file, err := os.Stat(l.path); err != nil || !os.SameFile(file, l.file) {
		return errStale
	}
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return f(conn)
}

func (l *live) mark(ctx context.Context) (version int64, err error) {
	if file, err := os.Stat(l.path); err != nil || !os.SameFile(file, l.file) {
		return 0, errStale
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.watch.QueryRowContext(ctx, queryVersion).Scan(&version)
	return version, err
}

func (l *live) info(ctx context.Context, part nix.HashPart) (info *narstore.PathInfo, err error) {
	err = l.with(ctx, func(conn *sql.Conn) error {
		info, err = readInfo(ctx, conn, part)
		return err
	})
	return info, err
}

func (l *live) begin(full bool, last int64) *cursor { return beginRows(full, last) }

func (l *live) page(ctx context.Context, c *cursor, ledger *follow.Ledger) (p follow.Page, err error) {
	err = l.with(ctx, func(conn *sql.Conn) error {
		p, err = readPage(ctx, conn, c, ledger)
		return err
	})
	return p, err
}

func (l *live) pause(poll time.Duration) time.Duration { return poll }

func (l *live) close() error { return errors.Join(l.watch.Close(), l.db.Close()) }
