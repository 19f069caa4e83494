package nixdb

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the "sqlite" driver, without cgo
)

// lockWait is how long SQLite itself waits for a lock. Readers of a database in
// WAL mode meet one only at the moments when Nix recovers or removes the log.
const lockWait = time.Second

// openMode is how SQLite is told to open Nix's database.
type openMode string

const (
	// modeLive sees every commit. It needs the -wal and -shm files, or the
	// right to create them.
	modeLive openMode = "mode=ro"
	// modeSnapshot opens any readable file, and neither locks it nor looks at
	// its log: it is right only while nobody writes.
	modeSnapshot openMode = "immutable=1"
)

// openDatabase opens Nix's database and proves that it can be read.
func openDatabase(ctx context.Context, path string, mode openMode) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	query := fmt.Sprintf("%s&_pragma=busy_timeout(%d)", mode, lockWait.Milliseconds())
	dsn := url.URL{Scheme: "file", Path: abs, RawQuery: query}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	// Connections stay open: an open one keeps the -wal and -shm files in being.
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	// Not a ping, which reads nothing; and both tables, to see their columns.
	const probe = `SELECT ` + columns + ` FROM ValidPaths, Refs WHERE id = -1 AND referrer = -1 AND reference = -1`
	rows, err := db.QueryContext(ctx, probe)
	if err == nil {
		err = firstError(rows)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// firstError steps and closes rows.
func firstError(rows *sql.Rows) error {
	rows.Next()
	if err := rows.Close(); err != nil {
		return err
	}
	return rows.Err()
}

// maxConns is one connection for Follow, and some for Info. Each takes up to
// 2 MB for its cache.
const maxConns = 3

// columns are cut to what a well-formed row can hold, so that a damaged one
// costs no memory. What is cut is malformed.
const columns = `id, substr(path, 1, 300), substr(hash, 1, 100), substr(deriver, 1, 300),
	narSize, ultimate, substr(sigs, 1, 65536), substr(ca, 1, 300)`

const (
	queryPage = `SELECT ` + columns + ` FROM ValidPaths WHERE id > ? ORDER BY id LIMIT ?`
	// Everything that begins with "<hash part>-", by the index on path: "." is
	// the next byte after "-".
	queryPart = `SELECT ` + columns + ` FROM ValidPaths WHERE path >= ? || '-' AND path < ? || '.' LIMIT 1`
	queryRefs = `SELECT referrer, reference, substr(path, 1, 300) FROM Refs JOIN ValidPaths ON id = reference
		WHERE referrer BETWEEN ? AND ? ORDER BY referrer, reference`
	queryVersion = `PRAGMA data_version`
)
