package share_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/manifests"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// The catalog with the keeper and the database that it has in production.
func TestOnTheDatabase(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	sound, withdrawn := newPath(t, "sound", large("sound"), cache), newPath(t, "withdrawn", large("withdrawn"), cache)
	damaged := newPath(t, "damaged", large("damaged"), cache)
	damaged.nar[1000] ^= 1
	s := newStore()
	s.add(sound, withdrawn, damaged)

	dir := t.TempDir()
	session := func(use func(n *node)) {
		db, err := state.Open(dir, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		n := &node{store: s}
		n.Catalog = share.New(s, policy, manifests.New(db.Bucket("manifests"), zap.NewNop()), db.Bucket("withdrawn"), zap.NewNop())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		n.listed(t) // waits for the whole listing
		use(n)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}

	var first bytes.Buffer
	session(func(n *node) {
		if n.Len() != 3 {
			t.Errorf("Len() = %d, want 3", n.Len())
		}
		if _, _, held := n.Held(sound.hash()); !held {
			t.Error("a path is not held")
		}
		if _, err := n.Manifest(t.Context(), sound.hash(), func(b []byte) error { first.Write(b); return nil }); err != nil {
			t.Error(err)
		}
		n.provides(t, sound, true)
		if err := n.Withdraw(withdrawn.info.Path); err != nil {
			t.Error(err)
		}
		if _, err := n.Manifest(t.Context(), damaged.hash(), func([]byte) error { return nil }); !errors.Is(err, chunk.ErrCorrupt) {
			t.Errorf("Manifest of damaged bytes: %v", err)
		}
	})
	session(func(n *node) {
		n.shares(t, withdrawn, false)
		n.shares(t, damaged, false)
		root, known, held := n.Held(sound.hash())
		m, err := chunk.Decode(first.Bytes(), sound.hash(), sound.info.NARSize)
		if err != nil || !held || !known || root != m.Root() {
			t.Errorf("Held = %s, %t, %t; want the root of the manifest of before, %v", root, known, held, err)
		}
		// The manifest is kept, so the path is not even opened.
		reads := s.readsSoFar()
		if _, err := n.Manifest(t.Context(), sound.hash(), func([]byte) error { return nil }); err != nil || s.readsSoFar() != reads+1 {
			t.Errorf("Manifest: %v after %d reads of the store, want 1", err, s.readsSoFar()-reads)
		}
	})
}
