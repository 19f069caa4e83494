package share_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// path is a path of the store in memory.
type path struct {
	info *narstore.PathInfo
	nar  []byte
}

func (p *path) part() nix.HashPart { return p.info.Path.HashPart() }
func (p *path) hash() nix.NARHash  { return p.info.NARHash }

func (p *path) key() share.Key {
	return share.Key{HashPart: p.part(), NARHash: p.hash(), NARSize: p.info.NARSize, Root: true}
}

// newPath makes a path whose hash part follows from its name; keys sign it.
func newPath(t *testing.T, name string, nar []byte, keys ...narinfo.SecretKey) *path {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	storePath, err := nix.NewStorePath(nix.HashPart(sum[:20]), name)
	if err != nil {
		t.Fatal(err)
	}
	info := &narstore.PathInfo{Path: storePath, NARHash: sha256.Sum256(nar), NARSize: int64(len(nar))}
	sign(info, keys...)
	return &path{info: info, nar: nar}
}

func sign(info *narstore.PathInfo, keys ...narinfo.SecretKey) {
	for _, k := range keys {
		info.Signatures = append(info.Signatures, k.Sign(info.Narinfo().Fingerprint()))
	}
}

func secretKey(t *testing.T, name string) narinfo.SecretKey {
	t.Helper()
	k, err := narinfo.GenerateSecretKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// large returns bytes that need a manifest.
func large(seed string) []byte {
	return bytes.Repeat([]byte(seed), 3*chunk.MaxSize/len(seed))
}

// node is a catalog that runs, inside a synctest bubble.
type node struct {
	*share.Catalog
	store  *store
	keeper *keeper
	marks  *bucket
	logs   *observer.ObservedLogs
	stop   func()
}

func run(t *testing.T, policy *share.Policy, store *store, marks *bucket) *node {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	n := &node{store: store, keeper: &keeper{kept: make(map[nix.NARHash][]byte)}, marks: marks, logs: logs}
	n.Catalog = share.New(store, policy, n.keeper, marks, zap.New(core))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = func() {
		t.Helper()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}
	synctest.Wait()
	return n
}

func start(t *testing.T, policy *share.Policy, paths ...*path) *node {
	t.Helper()
	s := newStore()
	s.add(paths...)
	return run(t, policy, s, &bucket{values: make(map[string]string)})
}

// isNotFound reports whether err is that of an absent path, and says nothing
// that would tell of another reason.
func isNotFound(err error) bool {
	return errors.Is(err, narstore.ErrNotFound) && err.Error() == narstore.ErrNotFound.Error()
}

// shares checks whether the node lists a path and gives its record.
func (n *node) shares(t *testing.T, p *path, want bool) {
	t.Helper()
	info, err := n.Narinfo(t.Context(), p.part())
	if want && (err != nil || info.NARHash != p.hash()) || !want && !isNotFound(err) {
		t.Errorf("Narinfo(%s) = %v, %v; want shared = %t", p.info.Path, info, err, want)
	}
	if slices.Contains(n.listed(t), p.key()) != want {
		t.Errorf("%s is followed = %t", p.info.Path, !want)
	}
}

// provides checks what the node says about a NAR hash.
func (n *node) provides(t *testing.T, p *path, want bool) {
	t.Helper()
	if _, _, held := n.Held(p.hash()); held != want {
		t.Errorf("Held(%s) = %t, want %t", p.info.Path, held, want)
	}
	nar, err := n.Open(t.Context(), p.hash())
	if want {
		if err != nil {
			t.Fatalf("Open(%s): %v", p.info.Path, err)
		}
		got, err := io.ReadAll(io.NewSectionReader(nar, 0, nar.Size()))
		if err != nil || !bytes.Equal(got, p.nar) {
			t.Errorf("%s: read %d bytes of its NAR, %v", p.info.Path, len(got), err)
		}
		nar.Close()
	} else if !isNotFound(err) {
		t.Errorf("Open(%s): %v", p.info.Path, err)
	}
	var pieces bytes.Buffer
	root, err := n.Manifest(t.Context(), p.hash(), func(b []byte) error { pieces.Write(b); return nil })
	if want {
		m, decodeErr := chunk.Decode(pieces.Bytes(), p.hash(), p.info.NARSize)
		if err != nil || decodeErr != nil || m.Root() != root {
			t.Errorf("Manifest(%s) = %s, %v, %v", p.info.Path, root, err, decodeErr)
		}
	} else if !isNotFound(err) || pieces.Len() > 0 {
		t.Errorf("Manifest(%s): %v after %d bytes", p.info.Path, err, pieces.Len())
	}
	if open := n.store.openNow(); open != 0 {
		t.Errorf("%d NARs are still open", open)
	}
}

// listed returns what a new follower hears.
func (n *node) listed(t *testing.T) []share.Key {
	t.Helper()
	var keys []share.Key
	settled := errors.New("settled")
	err := n.Follow(t.Context(), func(c share.Change) error {
		keys = append(keys, c.Added...)
		if c.Settled {
			return settled
		}
		return nil
	})
	if !errors.Is(err, settled) {
		t.Fatalf("Follow: %v", err)
	}
	return keys
}

func TestUnshareableDoesNotExist(t *testing.T) {
	cache, company := secretKey(t, "cache"), secretKey(t, "company")
	_, data, _ := strings.Cut(company.Text(), ":")
	impostor, err := narinfo.ParseSecretKey("cache:" + data)
	if err != nil {
		t.Fatal(err)
	}
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}, Exclude: []string{"secret-*", "*.iso"}, MaxNARSize: 4 * chunk.MaxSize}

	resized := newPath(t, "resized", large("resized"), cache)
	resized.info.NARSize--
	local := newPath(t, "local", large("local"))
	local.info.Ultimate = true
	referring := newPath(t, "referring", large("referring"), cache)
	referring.info.References = []nix.StorePath{local.info.Path}

	for _, tc := range []struct {
		name string
		path *path
		want string // part of the reason
	}{
		{"unsigned", newPath(t, "unsigned", large("unsigned")), "no key"},
		{"trusted but not shareable key", newPath(t, "internal", large("internal"), company), "no key"},
		{"shareable name, signature does not verify", newPath(t, "forged", large("forged"), impostor), "no key"},
		{"signature of another size", resized, "no key"},
		{"signature of other references", referring, "no key"},
		{"local build", local, "no key"},
		{"derivation", newPath(t, "hello.drv", large("hello.drv"), cache), "derivation"},
		{"excluded prefix", newPath(t, "secret-plans", large("plans"), cache), "excluded"},
		{"excluded suffix", newPath(t, "nixos.iso", large("iso"), cache), "excluded"},
		{"too large", newPath(t, "large", make([]byte, 4*chunk.MaxSize+1), cache), "larger"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				public := newPath(t, "public", large("public"), cache)
				n := start(t, policy, tc.path, public)
				defer n.stop()
				n.keeper.kept[tc.path.hash()] = []byte("kept from better days")
				reads := n.store.readsSoFar()
				n.shares(t, tc.path, false)
				n.provides(t, tc.path, false)
				if got := n.store.readsSoFar(); got != reads {
					t.Errorf("the store was asked %d times, which takes time that an absent path does not take", got-reads)
				}
				if err := n.Explain(t.Context(), tc.path.info.Path); err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("Explain = %v, want %q in it", err, tc.want)
				}
				if n.Len() != 1 {
					t.Errorf("Len() = %d, want 1", n.Len())
				}
				n.shares(t, public, true)
				n.provides(t, public, true)
				if err := n.Explain(t.Context(), public.info.Path); err != nil {
					t.Errorf("Explain of a shared path: %v", err)
				}
				absent := newPath(t, "absent", large("absent"), cache)
				n.shares(t, absent, false)
				n.provides(t, absent, false)
				if err := n.Explain(t.Context(), absent.info.Path); !errors.Is(err, narstore.ErrNotFound) {
					t.Errorf("Explain of an absent path: %v", err)
				}
			})
		})
	}
}

// Peers read no more of a record than makes it public.
func TestNarinfoTellsNothingPrivate(t *testing.T) {
	cache, laptop := secretKey(t, "cache"), secretKey(t, "alices-laptop")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		recipe := newPath(t, "recipe.drv", nil).info.Path
		fetched, built := newPath(t, "fetched", large("fetched"), laptop, cache), newPath(t, "built", large("built"), cache)
		fetched.info.Deriver, built.info.Deriver = recipe, recipe
		built.info.Ultimate = true
		n := start(t, policy, fetched, built)
		defer n.stop()

		info, err := n.Narinfo(t.Context(), fetched.part())
		if err != nil {
			t.Fatal(err)
		}
		want := fetched.info.Narinfo()
		want.Signatures = want.Signatures[1:]
		if diff := cmp.Diff(string(want.Bytes()), string(info.Bytes())); diff != "" {
			t.Errorf("Narinfo (-want +got):\n%s", diff)
		}
		if info, err := n.Narinfo(t.Context(), built.part()); err != nil || !info.Deriver.IsZero() {
			t.Errorf("Narinfo of a local build has Deriver %s, %v", info.Deriver, err)
		}
	})
}

func TestFollowsTheStore(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		unsigned := newPath(t, "p", large("p"))
		signed := newPath(t, "p", large("p"), cache)
		rebuilt := newPath(t, "p", large("q"), cache)
		n := start(t, policy)
		defer n.stop()
		for _, step := range []struct {
			name         string
			do           func()
			first, other bool
		}{
			{"empty", func() {}, false, false},
			{"unsigned", func() { n.store.add(unsigned) }, false, false},
			{"signed later", func() { n.store.add(signed) }, true, false},
			{"told again", func() { n.store.add(signed) }, true, false},
			{"other bytes", func() { n.store.add(rebuilt) }, false, true},
			{"signature lost", func() { n.store.add(unsigned) }, false, false},
			{"signed again", func() { n.store.add(signed) }, true, false},
			{"removed", func() { n.store.remove(signed) }, false, false},
			{"removed again", func() { n.store.remove(signed) }, false, false},
		} {
			step.do()
			synctest.Wait()
			n.provides(t, signed, step.first)
			n.provides(t, rebuilt, step.other)
			if step.first {
				n.shares(t, signed, true)
			}
			if t.Failed() {
				t.Fatalf("after %q", step.name)
			}
		}
	})
}

// What the store says now counts, not what it said when the path was listed.
func TestChecksAgain(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	for _, tc := range []struct {
		name  string
		later func(t *testing.T) *path
	}{
		{"gone", func(*testing.T) *path { return nil }},
		{"no longer signed", func(t *testing.T) *path { t.Helper(); return newPath(t, "p", large("p")) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPath(t, "p", large("p"), cache)
				n := start(t, policy, p)
				defer n.stop()
				n.provides(t, p, true) // its manifest is kept from now on
				n.store.alter(p.part(), tc.later(t))
				if _, err := n.Narinfo(t.Context(), p.part()); !errors.Is(err, narstore.ErrNotFound) {
					t.Errorf("Narinfo: %v", err)
				}
				if _, err := n.Open(t.Context(), p.hash()); !errors.Is(err, narstore.ErrNotFound) {
					t.Errorf("Open: %v", err)
				}
				if _, err := n.Manifest(t.Context(), p.hash(), func([]byte) error { return nil }); !errors.Is(err, narstore.ErrNotFound) {
					t.Errorf("Manifest: %v", err)
				}
			})
		})
	}
}

// Many paths have the same bytes, such as empty directories.
func TestSharedNARHash(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		a, b := newPath(t, "a", large("same"), cache), newPath(t, "b", large("same"), cache)
		private := newPath(t, "private", large("same"))
		n := start(t, policy, a, b, private)
		defer n.stop()
		n.shares(t, private, false)
		n.provides(t, a, true)

		n.store.remove(a)
		synctest.Wait()
		n.shares(t, a, false)
		n.shares(t, b, true)
		n.provides(t, b, true)

		n.store.add(a)
		n.store.add(newPath(t, "b", large("same")))
		synctest.Wait()
		n.shares(t, b, false)
		n.provides(t, a, true)

		n.store.remove(a)
		synctest.Wait()
		n.provides(t, a, false)
		n.provides(t, private, false)
	})
}

// The first candidate may be gone already when the watcher has not yet said so.
func TestOpensAnotherPathOfTheSameBytes(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		a, b := newPath(t, "a", large("same"), cache), newPath(t, "b", large("same"), cache)
		n := start(t, policy, a, b)
		defer n.stop()
		for _, gone := range []*path{a, b} {
			n.store.alter(gone.part(), nil)
			n.provides(t, gone, true)
			n.store.alter(gone.part(), gone)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	cache := secretKey(t, "cache")
	policy := &share.Policy{Keys: []narinfo.PublicKey{cache.Public()}}
	synctest.Test(t, func(t *testing.T) {
		a, b := newPath(t, "a", large("same"), cache), newPath(t, "b", large("same"), cache)
		n := start(t, policy, a, b)
		defer n.stop()
		known := func(err error) {
			if err != nil && !errors.Is(err, narstore.ErrNotFound) {
				t.Error(err)
			}
		}
		var all sync.WaitGroup
		for _, use := range []func(){
			func() { n.store.remove(b) },
			func() { n.store.add(b) },
			func() { known(n.Withdraw(a.info.Path)) },
			func() { known(n.Restore(t.Context(), a.info.Path)) },
			func() { n.Held(a.hash()) },
			func() { n.listed(t) },
			func() { n.Len() },
			func() {
				_, err := n.Narinfo(t.Context(), a.part())
				known(err)
			},
			func() {
				nar, err := n.Open(t.Context(), a.hash())
				if known(err); err == nil {
					nar.Close()
				}
			},
			func() {
				_, err := n.Manifest(t.Context(), a.hash(), func([]byte) error { return nil })
				known(err)
			},
		} {
			all.Go(func() {
				for range 30 {
					use()
				}
			})
		}
		all.Wait()
		known(n.Restore(t.Context(), a.info.Path))
		n.store.add(b)
		synctest.Wait()
		n.shares(t, a, true)
		n.shares(t, b, true)
		n.provides(t, a, true)
	})
}
