package nixdb

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/internal/follow"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// pageRows is how many rows one page looks at. A page is read in one
// transaction; while it lasts, tens of milliseconds, Nix cannot reset its log.
const pageRows = 4096

// found is a row on its way to become a record.
type found struct {
	id int64
	follow.Record
}

// readPage reads the rows behind c, and moves c.
func readPage(ctx context.Context, conn *sql.Conn, c *cursor, ledger *follow.Ledger) (follow.Page, error) {
	var news []found
	last, count := c.after, 0
	err := readTx(ctx, conn, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, queryPage, c.after, pageRows)
		if err != nil {
			return err
		}
		for ; rows.Next(); count++ {
			var r row
			err := r.scan(rows)
			last = r.id
			if path, bad := nix.ParseStorePath(r.path.String); err != nil || bad != nil || !ledger.Seen(path.HashPart(), r.sum()) {
				news = append(news, r.parse(err))
			}
		}
		if err := closeRows(rows); err != nil {
			return err
		}
		return readReferences(ctx, tx, news)
	})
	if err != nil {
		return follow.Page{}, err
	}
	c.after = last
	p := follow.Page{End: count < pageRows}
	for _, f := range news {
		p.Records = append(p.Records, f.Record)
	}
	return p, nil
}

// readReferences fills in the references of the rows, which are in the order
// of their ids.
func readReferences(ctx context.Context, tx *sql.Tx, rows []found) error {
	if len(rows) == 0 {
		return nil
	}
	refs, err := tx.QueryContext(ctx, queryRefs, rows[0].id, rows[len(rows)-1].id)
	if err != nil {
		return err
	}
	defer refs.Close()
	// Most references of a page are to the same few paths: they share a name.
	parsed := make(map[int64]nix.StorePath)
	for refs.Next() {
		var referrer, reference int64
		var text sql.RawBytes
		if err := refs.Scan(&referrer, &reference, &text); err != nil {
			return err
		}
		for len(rows) > 0 && rows[0].id < referrer {
			rows = rows[1:]
		}
		if len(rows) == 0 || rows[0].id != referrer || rows[0].Err != nil {
			continue
		}
		path, ok := parsed[reference]
		if !ok {
			if path, err = nix.ParseStorePath(string(text)); err != nil {
				rows[0].Err = fmt.Errorf("reference: %w", err)
				continue
			}
			parsed[reference] = path
		}
		rows[0].Info.References = append(rows[0].Info.References, path)
	}
	return refs.Err()
}

// readInfo looks one path up.
func readInfo(ctx context.Context, conn *sql.Conn, part nix.HashPart) (*narstore.PathInfo, error) {
	var f []found
	prefix := nix.StoreDir + "/" + part.String()
	err := readTx(ctx, conn, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, queryPart, prefix, prefix)
		if err != nil {
			return err
		}
		if rows.Next() {
			var r row
			err := r.scan(rows)
			f = []found{r.parse(err)}
		}
		if err := closeRows(rows); err != nil {
			return err
		}
		return readReferences(ctx, tx, f)
	})
	switch {
	case err != nil:
		return nil, err
	case len(f) == 0:
		return nil, narstore.ErrNotFound
	case f[0].Err != nil:
		return nil, &malformedError{label: f[0].Label, err: f[0].Err}
	}
	return f[0].Info, nil
}

// malformedError is the answer where the one record asked for is malformed.
type malformedError struct {
	label string
	err   error
}

func (e *malformedError) Error() string {
	return fmt.Sprintf("malformed record of %s: %v", e.label, e.err)
}

// readTx runs f in a transaction, so that all it reads is of one moment.
func readTx(ctx context.Context, conn *sql.Conn, f func(*sql.Tx) error) error {
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	err = f(tx)
	if end := tx.Rollback(); err == nil {
		err = end
	}
	return err
}

// closeRows ends a query and returns its first error.
func closeRows(rows *sql.Rows) error {
	err := rows.Err()
	if end := rows.Close(); err == nil {
		err = end
	}
	return err
}
