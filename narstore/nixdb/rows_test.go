package nixdb

import (
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// FuzzRow reads what may stand in a row of Nix's database. What is accepted makes
// a record that can be written and is read as the same one.
func FuzzRow(f *testing.F) {
	const (
		path = "/nix/store/00000000000000000000000000000001-hello-2.12"
		hash = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
		sig  = "cache.nixos.org-1:UGmUdr6nhWo0SgFbdHnI0yyJEAzvCFHiPPU6X8mBgYzb2DTbvF9PKnDkOdxDTRTUS5YdFg0bYIcBZnsmVTvqCw=="
	)
	f.Add(path, hash, "", sig, "", int64(120), false)
	f.Add(path, "sha256:0000000000000000000000000000000000000000000000000000", path+".drv", sig+" "+sig, "", int64(1), true)
	f.Add(path, hash, path, "a:b :: "+sig, "fixed:r:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73", int64(1)<<62, true)
	f.Add(path, hash, "", "", "text:sha256:x\nSig: "+sig, int64(1), false)
	f.Add("/nix/store/../etc", hash, "/tmp", "\n", "\x00", int64(-1), false)
	f.Fuzz(func(t *testing.T, path, hash, deriver, sigs, address string, size int64, ultimate bool) {
		text := func(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }
		r := row{
			id: 1, path: text(path), hash: text(hash), deriver: text(deriver), sigs: text(sigs), contentAddress: text(address),
			narSize: sql.NullInt64{Int64: size, Valid: true}, ultimate: sql.NullBool{Bool: ultimate, Valid: true},
		}
		if got := r.parse(errors.New("a column is of another type")); got.Err == nil || got.Info != nil {
			t.Error("a row that could not be read became a record")
		}
		got := r.parse(nil)
		if got.Label == "" {
			t.Error("a row without a name")
		}
		if got.Err != nil {
			return
		}
		info := got.Info
		if info.Path.String() != path || info.NARSize != size || len(info.Signatures) > len(strings.Fields(sigs)) {
			t.Fatalf("%q, %d, %q became %+v", path, size, sigs, info)
		}
		if _, err := nix.ParseStorePath(deriver); deriver != "" && err != nil {
			t.Errorf("deriver %q was accepted", deriver)
		}
		record := info.Narinfo()
		again, err := narinfo.Parse(record.Bytes())
		if err != nil {
			t.Fatalf("the record cannot be read again: %v\n%s", err, record.Bytes())
		}
		if again.Fingerprint() != record.Fingerprint() || len(again.Signatures) != len(record.Signatures) {
			t.Errorf("another record is read again:\n%s", record.Bytes())
		}
	})
}
