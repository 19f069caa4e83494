package nixdb

import (
	"database/sql"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// row is one row of ValidPaths. SQLite's columns are not strictly typed, so
// any of them may be anything; scan says whether it was.
type row struct {
	id             int64
	path           sql.NullString
	hash           sql.NullString
	deriver        sql.NullString
	narSize        sql.NullInt64
	ultimate       sql.NullBool
	sigs           sql.NullString
	contentAddress sql.NullString
}

func (r *row) scan(rows *sql.Rows) error {
	return rows.Scan(&r.id, &r.path, &r.hash, &r.deriver, &r.narSize, &r.ultimate, &r.sigs, &r.contentAddress)
}

// sumSeed makes checksums of rows unguessable; they never leave the process.
var sumSeed = maphash.MakeSeed()

// sum is a checksum of the row but for its id and references, which Nix never
// changes alone.
func (r *row) sum() uint64 {
	var h maphash.Hash
	h.SetSeed(sumSeed)
	for _, s := range []string{r.path.String, r.hash.String, r.deriver.String, r.sigs.String, r.contentAddress.String} {
		h.WriteString(s)
		h.WriteByte(0)
	}
	h.WriteString(strconv.FormatInt(r.narSize.Int64, 10))
	h.WriteString(strconv.FormatBool(r.ultimate.Bool))
	return h.Sum64()
}

// parse makes a record of the row, but for its references. err is that of scan.
func (r *row) parse(err error) found {
	f := found{id: r.id}
	f.Label = r.path.String
	if f.Label == "" {
		f.Label = fmt.Sprintf("row %d of ValidPaths", r.id)
	}
	f.Sum = r.sum()
	if f.Err = err; err == nil {
		f.Info, f.Err = r.info()
	}
	return f
}

// info parses the row, all but its references.
func (r *row) info() (*narstore.PathInfo, error) {
	path, err := nix.ParseStorePath(r.path.String)
	if err != nil {
		return nil, err
	}
	hash, err := nix.ParseNARHash(r.hash.String)
	if err != nil {
		return nil, err
	}
	if r.narSize.Int64 <= 0 {
		return nil, fmt.Errorf("NAR size %d", r.narSize.Int64)
	}
	if err := narinfo.CheckValue(r.contentAddress.String); err != nil {
		return nil, fmt.Errorf("content address: %w", err)
	}
	info := &narstore.PathInfo{
		Path:     path,
		NARHash:  hash,
		NARSize:  r.narSize.Int64,
		CA:       r.contentAddress.String,
		Ultimate: r.ultimate.Bool,
	}
	if r.deriver.String != "" {
		if info.Deriver, err = nix.ParseStorePath(r.deriver.String); err != nil {
			return nil, fmt.Errorf("deriver: %w", err)
		}
	}
	for text := range strings.FieldsSeq(r.sigs.String) {
		// As in narinfos: one bad signature spoils nothing but itself.
		if sig, err := narinfo.ParseSignature(text); err == nil {
			info.Signatures = append(info.Signatures, sig)
		}
	}
	return info, nil
}
