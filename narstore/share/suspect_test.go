package share_test

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// damaged checks what the owner is told.
func (n *node) damaged(t *testing.T, want ...nix.StorePath) {
	t.Helper()
	got := n.Damaged()
	if len(got) != len(want) || len(want) > 0 && got[0] != want[0] {
		t.Errorf("Damaged() = %v, want %v", got, want)
	}
}

// A file was written to behind Nix's back: its length is right, and its manifest kept.
func TestFilesWrittenTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := shareOne(t)
		defer n.stop()
		use := func() {
			t.Helper()
			nar, err := n.Open(t.Context(), p.hash())
			if err != nil {
				t.Fatal(err)
			}
			if err := nar.Close(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		// All times of a store may be others than Nix's. That is looked at once.
		n.store.written = time.Unix(2, 0)
		use()
		before := n.store.readsSoFar()
		use()
		once := n.store.readsSoFar() - before
		before = n.store.readsSoFar()
		n.store.written = time.Unix(1, 0)
		use()
		if got := n.store.readsSoFar() - before; got != once {
			t.Errorf("a sound path is opened with %d reads of the store, %d with the times of Nix", once, got)
		}
		n.provides(t, p, true)
		n.damaged(t)

		spoilt := bytes.Clone(p.nar)
		spoilt[len(spoilt)/2] ^= 1
		n.store.mu.Lock()
		n.store.nars[p.part()], n.store.written = spoilt, time.Unix(3, 0)
		n.store.mu.Unlock()
		use()
		n.provides(t, p, false)
		n.damaged(t, p.info.Path)
		if n.logs.FilterMessageSnippet("corrupt").Len() != 1 {
			t.Errorf("the owner was not told once: %v", n.logs.All())
		}

		n.store.alter(p.part(), p)
		if err := n.Restore(t.Context(), p.info.Path); err != nil {
			t.Fatal(err)
		}
		use()
		n.provides(t, p, true)
		n.damaged(t)
	})
}

// That files cannot be read may be for a moment: they are still shared.
func TestFilesUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := shareOne(t)
		defer n.stop()
		n.store.damaged, n.store.failure = p.info.NARSize/2, &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}
		for range 2 {
			nar, err := n.Open(t.Context(), p.hash())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := read(nar); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("reading it: %v", err)
			}
			if err := nar.Close(); err != nil {
				t.Error(err)
			}
		}
		n.shares(t, p, true)
		n.damaged(t, p.info.Path)
		if n.logs.FilterMessageSnippet("cannot be read").Len() != 1 {
			t.Errorf("the owner was not told once: %v", n.logs.All())
		}
	})
}
