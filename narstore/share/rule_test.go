package share_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// What a new policy forbids is gone, what it allows comes, and what neither
// concerns is there all the time.
func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, team := secretKey(t, "cache"), secretKey(t, "team")
		public, both := newPath(t, "public", large("public"), cache), newPath(t, "both", large("both"), cache, team)
		secret := newPath(t, "secret", large("secret"), cache, team)
		own := newPath(t, "own", large("own"), team)
		n := start(t, &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}, public, both, secret, own)
		defer n.stop()
		ctx := t.Context()
		r := n.read(ctx)
		for r.step() {
		}
		next := &share.Policy{Keys: []narinfo.PublicKey{team.Public()}, Exclude: []string{"sec*"}}
		if err := n.Apply(next); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for p, want := range map[*path]bool{public: false, both: true, secret: false, own: true} {
			n.provides(t, p, want)
			if _, err := n.Narinfo(ctx, p.part()); (err == nil) != want {
				t.Errorf("Narinfo(%s): %v", p.info.Path, err)
			}
		}
		for r.step() {
		}
		if diff := cmp.Diff(map[share.Key]bool{both.key(): true, own.key(): true}, r.keys); diff != "" || len(r.faults) > 0 {
			t.Errorf("%q, followed (-want +got):\n%s", r.faults, diff)
		}
		if n.Len() != 2 || n.Policy() != next {
			t.Errorf("Len() = %d", n.Len())
		}
	})
}

// While the store is being read again the new policy counts for whatever is asked
// for.
func TestApplyBeforeTheStoreIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := secretKey(t, "cache")
		good, secret := newPath(t, "good", large("good"), cache), newPath(t, "secret", large("secret"), cache)
		gone := newPath(t, "gone", large("gone"), cache)
		n := start(t, &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}, good, secret, gone)
		defer n.stop()
		n.store.pause(true)
		if err := n.Apply(&share.Policy{Keys: []narinfo.PublicKey{cache.Public()}, Exclude: []string{"secret"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n.provides(t, secret, false)
		n.provides(t, good, true)
		n.store.remove(gone)
		n.store.pause(false)
		synctest.Wait()
		n.provides(t, good, true)
		n.provides(t, gone, false)
		if n.Len() != 1 {
			t.Errorf("Len() = %d, want 1", n.Len())
		}
	})
}

// Whatever the store and the policy do at the same time, in the end both count.
func TestApplyWhileTheStoreChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := secretKey(t, "cache")
		keys := []narinfo.PublicKey{cache.Public()}
		n := start(t, &share.Policy{Keys: keys})
		defer n.stop()
		r := n.read(t.Context())
		want := make(map[share.Key]bool)
		for i := range 60 {
			p := newPath(t, fmt.Sprintf("p%d-%d", i, i%3), large("bytes"), cache)
			n.store.add(p)
			if i%7 == 0 {
				if err := n.Apply(&share.Policy{Keys: keys, Exclude: []string{fmt.Sprintf("*-%d", i/7%3)}}); err != nil {
					t.Fatal(err)
				}
			}
			if i%5 == 0 {
				n.store.remove(p)
			} else if i%3 != 56/7%3 {
				want[p.key()] = true
			}
			if i%4 == 0 {
				r.step()
			}
		}
		for r.step() {
		}
		if diff := cmp.Diff(want, r.keys); diff != "" || len(r.faults) > 0 {
			t.Errorf("%q, followed (-want +got):\n%s", r.faults, diff)
		}
	})
}
