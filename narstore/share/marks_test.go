package share_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

func TestWithdrawAndRestore(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		p, other := newPath(t, "p", large("p"), cache), newPath(t, "other", large("other"), cache)
		n := start(t, policy, p, other)
		n.provides(t, p, true)

		if err := n.Withdraw(p.info.Path); err != nil {
			t.Fatal(err)
		}
		n.shares(t, p, false)
		n.provides(t, p, false)
		n.shares(t, other, true)
		if err := n.Explain(t.Context(), p.info.Path); err == nil || !strings.Contains(err.Error(), "withdrawn") {
			t.Errorf("Explain = %v", err)
		}
		n.store.add(p) // it comes again, with one signature more
		synctest.Wait()
		n.shares(t, p, false)
		n.stop()

		n = run(t, policy, n.store, n.marks) // after a restart
		n.shares(t, p, false)
		n.shares(t, other, true)
		if err := n.Restore(t.Context(), p.info.Path); err != nil {
			t.Fatal(err)
		}
		n.shares(t, p, true)
		n.provides(t, p, true)
		if err := n.Restore(t.Context(), p.info.Path); err != nil {
			t.Errorf("Restore of a shared path: %v", err)
		}
		n.stop()

		n = run(t, policy, n.store, n.marks)
		defer n.stop()
		n.shares(t, p, true)
	})
}

func TestRestoreKeepsToThePolicy(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		unsigned, absent := newPath(t, "unsigned", large("unsigned")), newPath(t, "absent", large("absent"), cache)
		n := start(t, policy, unsigned)
		defer n.stop()
		if err := n.Restore(t.Context(), unsigned.info.Path); err == nil || !strings.Contains(err.Error(), "no key") {
			t.Errorf("Restore of an unsigned path: %v", err)
		}
		n.shares(t, unsigned, false)
		if err := n.Restore(t.Context(), absent.info.Path); !errors.Is(err, narstore.ErrNotFound) {
			t.Errorf("Restore of an absent path: %v", err)
		}
		renamed, err := nix.NewStorePath(unsigned.part(), "renamed")
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Restore(t.Context(), renamed); !errors.Is(err, narstore.ErrNotFound) {
			t.Errorf("Restore of another name: %v", err)
		}
	})
}

// A path that is not there yet can be withdrawn in advance.
func TestWithdrawBeforeItIsThere(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		p := newPath(t, "p", large("p"), cache)
		n := start(t, policy)
		defer n.stop()
		if err := n.Withdraw(p.info.Path); err != nil {
			t.Fatal(err)
		}
		n.store.add(p)
		synctest.Wait()
		n.shares(t, p, false)
		n.provides(t, p, false)
	})
}

func TestMarksThatCannotBeKept(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		p := newPath(t, "p", large("p"), cache)
		n := start(t, policy, p)
		full := errors.New("disk full")
		n.marks.err = full
		if err := n.Withdraw(p.info.Path); !errors.Is(err, full) {
			t.Errorf("Withdraw: %v", err)
		}
		n.shares(t, p, false) // the owner's wish counts all the same
		if err := n.Restore(t.Context(), p.info.Path); !errors.Is(err, full) {
			t.Errorf("Restore: %v", err)
		}
		n.shares(t, p, false)
		n.stop()

		c := share.New(n.store, policy, n.keeper, n.marks, zap.NewNop())
		if err := c.Run(t.Context()); !errors.Is(err, full) {
			t.Errorf("Run without its marks: %v", err)
		}
		if c.Len() != 0 {
			t.Error("a catalog without its marks shares paths")
		}
	})
}

func TestCorruptPath(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	manifest := func(t *testing.T, n *node, p *path) error {
		t.Helper()
		_, err := n.Manifest(t.Context(), p.hash(), func([]byte) error { return nil })
		return err
	}
	open := func(t *testing.T, n *node, p *path) error {
		t.Helper()
		_, err := n.Open(t.Context(), p.hash())
		return err
	}
	shorten := func(b []byte) []byte { return b[:len(b)-8] }
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for _, tc := range []struct {
		name   string
		nar    []byte
		damage func([]byte) []byte
		find   func(*testing.T, *node, *path) error
	}{
		{"large, one bit", large("p"), flip, manifest},
		{"large, cut short", large("p"), shorten, manifest},
		{"small, one bit", []byte("smaller than any manifest"), flip, open},
		{"small, cut short", []byte("smaller than any manifest"), shorten, open},
		{"small, by manifest", []byte("smaller than any manifest"), flip, manifest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPath(t, "p", tc.nar, cache)
				damaged := &path{info: p.info, nar: tc.damage(append([]byte(nil), tc.nar...))}
				n := start(t, policy, damaged)
				n.shares(t, p, true)
				var all sync.WaitGroup
				for range 5 { // it is told once, however many peers ask
					all.Go(func() {
						if err := tc.find(t, n, p); !errors.Is(err, chunk.ErrCorrupt) && !isNotFound(err) {
							t.Errorf("error is %v, want chunk.ErrCorrupt", err)
						}
					})
				}
				all.Wait()
				n.shares(t, p, false)
				n.provides(t, p, false)
				if err := n.Explain(t.Context(), p.info.Path); err == nil || !strings.Contains(err.Error(), "corrupt") {
					t.Errorf("Explain = %v", err)
				}
				told := n.logs.FilterLevelExact(zapcore.ErrorLevel).FilterField(zap.String("repair", "nix-store --repair-path "+p.info.Path.String()))
				if told.Len() != 1 {
					t.Errorf("the owner is told %d times: %v", told.Len(), n.logs.All())
				}
				n.stop()

				n = run(t, policy, n.store, n.marks) // for good
				defer n.stop()
				n.shares(t, p, false)
				n.store.alter(p.part(), p) // repaired
				n.shares(t, p, false)
				if err := n.Restore(t.Context(), p.info.Path); err != nil {
					t.Fatal(err)
				}
				n.shares(t, p, true)
				n.provides(t, p, true)
			})
		})
	}
}

// One bad copy must not take down the good copies of the same bytes.
func TestCorruptPathBesideAGoodOne(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	for _, nar := range [][]byte{large("same"), []byte("same")} {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPath(t, "a", nar, cache), newPath(t, "b", nar, cache)
			bad := append([]byte(nil), nar...)
			bad[0] ^= 1
			n := start(t, policy, &path{info: a.info, nar: bad}, b)
			defer n.stop()
			for range 2 { // the bad one is found by now, whichever came first
				n.Manifest(t.Context(), a.hash(), func([]byte) error { return nil })
				n.store.alter(b.part(), nil)
				n.Manifest(t.Context(), a.hash(), func([]byte) error { return nil })
				n.store.add(b)
				synctest.Wait()
			}
			n.shares(t, b, true)
			n.provides(t, b, true)
		})
	}
}

// A keeper that computes for another path with the same bytes may say corrupt
// although this path is sound.
func TestSoundPathIsNotMarked(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		p := newPath(t, "p", large("p"), cache)
		n := start(t, policy, p)
		defer n.stop()
		err := errors.New("no piece wanted")
		if _, got := n.Manifest(t.Context(), p.hash(), func([]byte) error { return err }); !errors.Is(got, err) {
			t.Errorf("Manifest = %v, want what emit said", got)
		}
		other := errors.Join(chunk.ErrCorrupt)
		if _, got := n.Manifest(t.Context(), p.hash(), func([]byte) error { return other }); !errors.Is(got, chunk.ErrCorrupt) {
			t.Errorf("Manifest = %v, want what emit said", got)
		}
		n.shares(t, p, true)
		n.provides(t, p, true)
		if len(n.marks.values) != 0 {
			t.Errorf("marks: %q", n.marks.values)
		}
	})
}
