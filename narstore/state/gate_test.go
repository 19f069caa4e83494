package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ds "github.com/ipfs/go-datastore"

	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// Badger would go on for a while without its folder, and then wait for ever. What a
// full disk does is tested end to end, where there is one.
func TestFolderIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	db := open(t, dir)
	bucket, store := db.Bucket("a"), db.Datastore("a")
	key := ds.NewKey("key")
	batch, err := store.Batch(t.Context())
	if err == nil {
		err = errors.Join(bucket.Put([]byte("key"), []byte("value"), 0), store.Put(t.Context(), key, nil), db.Problem())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, batchErr := store.Batch(t.Context())
	for what, err := range map[string]error{
		"Put":             bucket.Put([]byte("key"), nil, 0),
		"Delete":          bucket.Delete([]byte("key")),
		"Change":          bucket.Change(func(func(_, _ []byte) bool) {}),
		"datastore Put":   store.Put(t.Context(), key, nil),
		"datastore Del":   store.Delete(t.Context(), key),
		"datastore Batch": batchErr,
		"batch Put":       batch.Put(t.Context(), key, nil),
		"batch Commit":    batch.Commit(t.Context()),
	} {
		if !errors.Is(err, state.ErrClosedToWrites) {
			t.Errorf("%s: %v, want ErrClosedToWrites", what, err)
		}
	}
	if got, err := bucket.Get([]byte("key")); err != nil || string(got) != "value" {
		t.Errorf("what there was: %q, %v", got, err)
	}
	if problem := db.Problem(); problem == nil || !strings.Contains(problem.Error(), dir+" was removed") {
		t.Errorf("Problem() = %v", problem)
	}
	if db.Forgetful() || db.SetAside() != "" {
		t.Error("it is another database")
	}
	// As after a backup.
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if problem := db.Problem(); problem == nil {
		t.Error("another folder is taken for its own")
	}
}
