package share_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// reader follows a catalog one Change at a time, when the test says so.
type reader struct {
	next    chan struct{}
	done    chan error
	keys    map[share.Key]bool
	settled bool
	faults  []string
	// nothingGoes: a path that is removed must come again in the same Change.
	nothingGoes bool
}

func (n *node) read(ctx context.Context) *reader {
	r := &reader{next: make(chan struct{}), done: make(chan error, 1), keys: make(map[share.Key]bool)}
	go func() {
		r.done <- n.Follow(ctx, func(c share.Change) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-r.next:
			}
			r.take(c)
			return nil
		})
	}()
	return r
}

func (r *reader) take(c share.Change) {
	fault := func(format string, args ...any) { r.faults = append(r.faults, fmt.Sprintf(format, args...)) }
	for _, k := range c.Removed {
		if !r.keys[k] {
			fault("%x was removed, but never added", k.HashPart)
		}
		delete(r.keys, k)
	}
	for _, k := range c.Added {
		if r.keys[k] {
			fault("%x was added twice", k.HashPart)
		}
		r.keys[k] = true
	}
	for _, k := range c.Removed {
		other := k
		other.Root = !k.Root
		if r.nothingGoes && !r.keys[k] && !r.keys[other] {
			fault("%x is gone", k.HashPart)
		}
	}
	if len(c.Added) > 1024 {
		fault("%d keys in one change", len(c.Added))
	}
	if r.settled && !c.Settled {
		fault("unsettled again")
	}
	r.settled = c.Settled
}

// step lets the reader take one Change; false if there is none.
func (r *reader) step() bool {
	synctest.Wait()
	select {
	case r.next <- struct{}{}:
		synctest.Wait()
		return true
	default:
		return false
	}
}

// Readers of any speed end up with what is in the store, whatever happened
// between and in the middle of their batches.
func TestFollowersOfAnySpeed(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	// Each path in two states of the same hash part.
	paths := make([][2]*path, 1200) // more than fit in one batch
	for i := range paths {
		name := fmt.Sprintf("p%d", i)
		paths[i] = [2]*path{newPath(t, name, []byte("even"), cache), newPath(t, name, []byte(name), cache)}
	}
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			n := start(t, policy)
			ctx, cancel := context.WithCancel(t.Context())
			var readers []*reader
			want := make(map[int]share.Key)
			for i, p := range paths {
				n.store.add(p[0])
				want[i] = p[0].key()
			}
			for round := range 30 {
				if round%6 == 0 {
					readers = append(readers, n.read(ctx))
				}
				var batch []*path
				for range random.IntN(150) {
					i := random.IntN(len(paths))
					switch p := paths[i][random.IntN(2)]; random.IntN(3) {
					case 0:
						n.store.remove(p)
						delete(want, i)
					case 1:
						n.store.add(p)
						want[i] = p.key()
					default:
						batch = append(batch, p)
					}
				}
				n.store.add(batch...)
				for _, p := range batch {
					var i int
					fmt.Sscanf(p.info.Path.Name(), "p%d", &i)
					want[i] = p.key()
				}
				synctest.Wait()
				for i, r := range readers {
					for range random.IntN(i + 1) {
						r.step()
					}
				}
			}
			keys := make(map[share.Key]bool)
			for _, k := range want {
				keys[k] = true
			}
			for i, r := range readers {
				for r.step() {
				}
				if diff := cmp.Diff(keys, r.keys); diff != "" {
					t.Errorf("reader %d (-want +got):\n%s", i, diff)
				}
				if len(r.faults) > 0 || !r.settled {
					t.Errorf("reader %d: settled = %t, faults: %q", i, r.settled, r.faults)
				}
			}
			if n.Len() != len(keys) {
				t.Errorf("Len() = %d, want %d", n.Len(), len(keys))
			}
			cancel()
			for _, r := range readers {
				if err := <-r.done; !errors.Is(err, context.Canceled) {
					t.Errorf("Follow: %v", err)
				}
			}
			n.stop()
		})
	}
}

func TestFollowSettles(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.listing = true
		n := run(t, policy, s, &bucket{values: make(map[string]string)})
		ctx, cancel := context.WithCancel(t.Context())
		r := n.read(ctx)
		if r.step() {
			t.Error("there is a change before there is anything to tell")
		}
		p := newPath(t, "p", []byte("p"), cache)
		s.add(p)
		if !r.step() || r.settled || !r.keys[p.key()] {
			t.Errorf("after the first path: settled = %t, keys = %v", r.settled, r.keys)
		}
		s.mu.Lock()
		s.listing = false
		s.tell(narstore.Update{})
		s.mu.Unlock()
		if !r.step() || !r.settled {
			t.Errorf("after the whole listing: settled = %t", r.settled)
		}
		if r.step() {
			t.Error("there is a change although nothing has changed")
		}
		cancel()
		<-r.done
		n.stop()
	})
}

func TestFollowReturnsTheErrorOfItsFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, &share.Policy{})
		defer n.stop()
		want := errors.New("enough")
		if err := n.Follow(t.Context(), func(share.Change) error { return want }); !errors.Is(err, want) {
			t.Errorf("Follow = %v, want %v", err, want)
		}
	})
}

// Whether a path is a root is known whatever the order in which the store tells
// of it and of what refers to it, and followers hear of it when that changes.
func TestRoots(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	referring := func(name string, to *path, keys ...narinfo.SecretKey) *path {
		p := newPath(t, name, []byte(name))
		p.info.References = []nix.StorePath{to.info.Path, p.info.Path}
		sign(p.info, keys...)
		return p
	}
	lib := newPath(t, "lib", []byte("lib"), cache)
	self := referring("self", lib, cache)
	self.info.References = []nix.StorePath{self.info.Path}
	self.info.Signatures = nil
	sign(self.info, cache)
	app := referring("app", lib, cache)
	profile := referring("profile", lib)
	recipe := referring("lib.drv", lib)
	for _, test := range []struct {
		name  string
		paths []*path
		roots []*path
	}{
		{"alone", []*path{lib}, []*path{lib}},
		{"refers to itself", []*path{self}, []*path{self}},
		{"referred to", []*path{lib, app}, []*path{app}},
		{"referred to, the other order", []*path{app, lib}, []*path{app}},
		{"installed", []*path{lib, app, profile}, []*path{lib, app}},
		{"installed, the other order", []*path{profile, app, lib}, []*path{lib, app}},
		{"referred to by a derivation", []*path{recipe, lib, app}, []*path{app}},
		{"told again", []*path{lib, app, lib}, []*path{app}},
	} {
		for _, listing := range []bool{true, false} {
			if !listing && len(test.paths) > 1 && test.paths[0] != lib {
				continue // Once it is valid, a path has all that it refers to.
			}
			t.Run(fmt.Sprintf("%s, listing %t", test.name, listing), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newStore()
					s.listing = listing
					n := run(t, policy, s, &bucket{values: make(map[string]string)})
					ctx, cancel := context.WithCancel(t.Context())
					r := n.read(ctx)
					for _, p := range test.paths {
						s.add(p)
						for r.step() {
						}
					}
					want := make(map[share.Key]bool)
					for _, p := range test.paths {
						if key := p.key(); n.Explain(ctx, p.info.Path) == nil {
							key.Root = slices.Contains(test.roots, p)
							want[key] = true
						}
					}
					if diff := cmp.Diff(want, r.keys); diff != "" {
						t.Errorf("keys (-want +got):\n%s", diff)
					}
					if len(r.faults) > 0 {
						t.Errorf("faults: %q", r.faults)
					}
					cancel()
					<-r.done
					n.stop()
				})
			})
		}
	}
}

// A path that becomes a root, or is one no more, is not told to be gone, however
// far the reader is and however many they are: the announcer would announce it
// anew.
func TestAlteredRootsAreNotGone(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	libs := make([]*path, 1500) // more than fit in one batch
	for i := range libs {
		name := fmt.Sprintf("lib%d", i)
		libs[i] = newPath(t, name, []byte(name), cache)
	}
	referring := func(name string, to []*path, keys ...narinfo.SecretKey) *path {
		p := newPath(t, name, []byte(name))
		for _, lib := range to {
			p.info.References = append(p.info.References, lib.info.Path)
		}
		sign(p.info, keys...)
		return p
	}
	for batches := range 4 {
		synctest.Test(t, func(t *testing.T) {
			n := start(t, policy, libs...)
			ctx, cancel := context.WithCancel(t.Context())
			r := n.read(ctx)
			r.nothingGoes = true
			for range batches {
				r.step()
			}
			n.store.add(referring("app", libs, cache))
			r.step()
			n.store.add(referring("profile", libs[:1000]))
			for r.step() {
			}
			roots := 0
			for k := range r.keys {
				if k.Root {
					roots++
				}
			}
			if len(r.keys) != 1501 || roots != 1001 {
				t.Errorf("after %d batches: %d keys, %d of them roots, want 1501 and 1001", batches, len(r.keys), roots)
			}
			if len(r.faults) > 0 {
				t.Errorf("after %d batches: %d faults, such as %s", batches, len(r.faults), r.faults[0])
			}
			cancel()
			<-r.done
			n.stop()
		})
	}
}
