package vouch_test

import (
	"encoding/binary"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/state"
	"github.com/nar-p2p/nar-p2p/narstore/vouch"
)

// BenchmarkUnsigned is what every path without an own signature costs.
func BenchmarkUnsigned(b *testing.B) {
	db, err := state.Open(filepath.Join(b.TempDir(), "db"), zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	bucket := db.Bucket("signatures")
	for i := range 20_000 {
		part := nix.HashPart{1}
		binary.BigEndian.PutUint64(part[8:], uint64(i))
		if err := bucket.Put(part[:], make([]byte, 200), 0); err != nil {
			b.Fatal(err)
		}
	}
	path, err := nix.NewStorePath(nix.HashPart{2}, "unsigned")
	if err != nil {
		b.Fatal(err)
	}
	s := vouch.New(newMemory(&narstore.PathInfo{Path: path}), bucket, zap.NewNop())
	for b.Loop() {
		if _, err := s.Info(b.Context(), path.HashPart()); err != nil {
			b.Fatal(err)
		}
	}
}
