package vouch_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/nixdb"
	"github.com/nar-p2p/nar-p2p/narstore/state"
	"github.com/nar-p2p/nar-p2p/narstore/storetest"
	"github.com/nar-p2p/nar-p2p/narstore/vouch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestConforms holds a Nix store with own signatures to the contract of a
// store. Its paths are sources, with both kinds of content address that Nix
// gives them.
func TestConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Fixture {
		t.Helper()
		n := storetest.NewNix(t)
		inner, err := nixdb.Open(nixdb.Config{Root: n.Root, Poll: 5 * time.Millisecond}, zaptest.NewLogger(t))
		if err != nil {
			t.Fatal(err)
		}
		db, err := state.Open(filepath.Join(t.TempDir(), "db"), zaptest.NewLogger(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(inner.Close(), db.Close()); err != nil {
				t.Error(err)
			}
		})
		store := vouch.New(inner, db.Bucket("signatures"), zaptest.NewLogger(t))
		return storetest.Fixture{
			Store: store,
			Nix:   n,
			Remove: func(t *testing.T, paths ...nix.StorePath) {
				t.Helper()
				n.Delete(t, paths...)
			},
			Sign: func(t *testing.T, keyFile string, paths ...nix.StorePath) {
				t.Helper()
				text, err := os.ReadFile(keyFile)
				if err != nil {
					t.Fatal(err)
				}
				key, err := narinfo.ParseSecretKey(string(text))
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range paths {
					info, err := store.Info(t.Context(), path.HashPart())
					if err != nil {
						t.Fatal(err)
					}
					if err := add(t, store, info, key); err != nil {
						t.Errorf("Add: %v", err)
					}
				}
			},
		}
	})
}

// memory is a store in memory.
type memory struct {
	infos map[nix.HashPart]*narstore.PathInfo
	nars  map[nix.HashPart][]byte
	// err is what Info says of a path that it does not have.
	err error
}

func (m *memory) Info(_ context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	if info := m.infos[part]; info != nil {
		return info, nil
	}
	return nil, m.err
}

func (m *memory) Open(_ context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	return memoryNAR{bytes.NewReader(m.nars[info.Path.HashPart()])}, nil
}

func (*memory) Follow(ctx context.Context, _ func(narstore.Update) error) error {
	<-ctx.Done()
	return ctx.Err()
}

type memoryNAR struct{ *bytes.Reader }

func (memoryNAR) Close() error { return nil }

// bucket is a bucket in memory.
type bucket map[string][]byte

func (b bucket) Get(key []byte) ([]byte, error) {
	if value, ok := b[string(key)]; ok {
		return value, nil
	}
	return nil, state.ErrNotFound
}

func (b bucket) Put(key, value []byte, _ time.Duration) error {
	b[string(key)] = bytes.Clone(value)
	return nil
}

func (b bucket) Delete(key []byte) error {
	delete(b, string(key))
	return nil
}

func (b bucket) Each(_ context.Context, f func(key, value []byte) error) error {
	for key, value := range b {
		if err := f([]byte(key), value); err != nil {
			return err
		}
	}
	return nil
}

func newMemory(infos ...*narstore.PathInfo) *memory {
	m := &memory{infos: make(map[nix.HashPart]*narstore.PathInfo), nars: make(map[nix.HashPart][]byte), err: narstore.ErrNotFound}
	for _, info := range infos {
		m.infos[info.Path.HashPart()] = info
	}
	return m
}

// built returns the record of a path that this machine has built.
func built(t *testing.T, name string) *narstore.PathInfo {
	t.Helper()
	path, err := nix.NewStorePath(nix.HashPart(sha256.New().Sum([]byte(name + strings.Repeat("-", 20)))[:20]), name)
	if err != nil {
		t.Fatal(err)
	}
	return &narstore.PathInfo{Path: path, NARHash: sha256.Sum256([]byte(name)), NARSize: 120, Ultimate: true}
}

func newKey(t *testing.T, name string) narinfo.SecretKey {
	t.Helper()
	key, err := narinfo.GenerateSecretKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// add signs a record and has the signature kept.
func add(t *testing.T, s *vouch.Store, info *narstore.PathInfo, key narinfo.SecretKey) error {
	t.Helper()
	return s.Add(t.Context(), info.Path, key.Public(), key.Sign(info.Narinfo().Fingerprint()))
}

// signers returns the names of the keys that have signed what s knows of a
// path.
func signers(t *testing.T, s *vouch.Store, path nix.StorePath, keys ...narinfo.SecretKey) []string {
	t.Helper()
	info, err := s.Info(t.Context(), path.HashPart())
	if err != nil {
		t.Fatal(err)
	}
	public := make([]narinfo.PublicKey, len(keys))
	for i, key := range keys {
		public[i] = key.Public()
	}
	var names []string
	for _, key := range info.Narinfo().SignedBy(public) {
		names = append(names, key.Name)
	}
	return names
}

func TestSignaturesJoinThoseOfTheStore(t *testing.T) {
	info := built(t, "hello")
	cache, first, second := newKey(t, "cache-1"), newKey(t, "own-1"), newKey(t, "own-2")
	info.Signatures = []narinfo.Signature{cache.Sign(info.Narinfo().Fingerprint())}
	kept := bucket{}
	s := vouch.New(newMemory(info), kept, zap.NewNop())
	for _, key := range []narinfo.SecretKey{first, first, second} {
		if err := add(t, s, info, key); err != nil {
			t.Fatal(err)
		}
	}
	// Another start.
	s = vouch.New(newMemory(info), kept, zap.NewNop())
	want := []string{"cache-1", "own-1", "own-2"}
	if diff := cmp.Diff(want, signers(t, s, info.Path, cache, first, second)); diff != "" {
		t.Errorf("signers differ (-want +got):\n%s", diff)
	}
	if len(info.Signatures) != 1 {
		t.Error("the record of the store itself was changed")
	}
	if got, _ := s.Info(t.Context(), info.Path.HashPart()); len(got.Signatures) != 3 {
		t.Errorf("%d signatures, want 3: each once", len(got.Signatures))
	}
}

func TestASignatureHoldsForOneResult(t *testing.T) {
	info, key := built(t, "hello"), newKey(t, "own-1")
	store := newMemory(info)
	s := vouch.New(store, bucket{}, zap.NewNop())
	if err := add(t, s, info, key); err != nil {
		t.Fatal(err)
	}
	other := *info
	other.NARHash[0] ^= 1
	store.infos[info.Path.HashPart()] = &other
	got, err := s.Info(t.Context(), info.Path.HashPart())
	if err != nil || len(got.Signatures) != 0 {
		t.Errorf("another build of the path has %d signatures, %v; want none", len(got.Signatures), err)
	}
	store.infos[info.Path.HashPart()] = info
	if got := signers(t, s, info.Path, key); len(got) != 1 {
		t.Errorf("the build that was signed has the signatures of %v, want one", got)
	}
}

func TestAddKeepsTheNewestSignatures(t *testing.T) {
	info := built(t, "hello")
	s := vouch.New(newMemory(info), bucket{}, zap.NewNop())
	keys := make([]narinfo.SecretKey, 20)
	for i := range keys {
		keys[i] = newKey(t, "key")
		if err := add(t, s, info, keys[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i, key := range keys {
		if got, want := len(signers(t, s, info.Path, key)) == 1, i >= 4; got != want {
			t.Errorf("key %d of 20: kept is %v, want %v", i, got, want)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	info, key := built(t, "hello"), newKey(t, "own-1")
	sig := key.Sign(info.Narinfo().Fingerprint())
	other := built(t, "other")
	renamed := narinfo.Signature{KeyName: "cache-1", Data: sig.Data}
	absent, err := nix.NewStorePath(info.Path.HashPart(), "another-name")
	if err != nil {
		t.Fatal(err)
	}
	s := vouch.New(newMemory(info, other), bucket{}, zap.NewNop())
	long := newKey(t, strings.Repeat("n", 300))
	for name, tt := range map[string]struct {
		path nix.StorePath
		key  narinfo.PublicKey
		sig  narinfo.Signature
		want string
	}{
		"a signature of another path":   {other.Path, key.Public(), sig, "is not one of its record"},
		"a signature of another key":    {info.Path, newKey(t, "own-1").Public(), sig, "is not one of its record"},
		"another name":                  {info.Path, key.Public(), renamed, "is not one of its record"},
		"a name too long":               {info.Path, long.Public(), long.Sign(info.Narinfo().Fingerprint()), "longer than 200 bytes"},
		"a path that is not there":      {absent, key.Public(), sig, "no such valid path"},
		"a hash part that is not there": {built(t, "absent").Path, key.Public(), sig, "no such valid path"},
	} {
		t.Run(name, func(t *testing.T) {
			err := s.Add(t.Context(), tt.path, tt.key, tt.sig)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Add() = %v, want an error with %q", err, tt.want)
			}
			if got, err := s.Info(t.Context(), info.Path.HashPart()); err != nil || len(got.Signatures) > 0 {
				t.Errorf("a signature was kept: %v, %v", got.Signatures, err)
			}
		})
	}
}

// TestCheck is about what may be signed, with sources as real Nix makes them.
func TestCheck(t *testing.T) {
	n := storetest.NewNix(t)
	db, err := nixdb.Open(nixdb.Config{Root: n.Root}, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("right"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, text := n.AddPair(t)
	tree := n.AddTree(t, "tree", "seed")
	flat, err := nix.ParseStorePath(strings.TrimSpace(n.Run(t, "nix-store", "--add-fixed", "sha256", file)))
	if err != nil {
		t.Fatal(err)
	}
	// source returns a path that Nix has made, changed.
	source := func(path nix.StorePath, change func(*narstore.PathInfo)) *narstore.PathInfo {
		info, err := db.Info(t.Context(), path.HashPart())
		if err != nil {
			t.Fatal(err)
		}
		change(info)
		return info
	}
	asItIs := func(*narstore.PathInfo) {}
	flip := func(b []byte) []byte { return bytes.Replace(b, []byte("right"), []byte("wrong"), 1) }
	for name, tt := range map[string]struct {
		info *narstore.PathInfo
		// nar is the path's NAR, where it is not what Nix has.
		nar []byte
		// want is part of the reason, "" where there is none.
		want string
	}{
		"built here":               {info: built(t, "hello")},
		"derivation":               {info: built(t, "hello.drv"), want: "derivation"},
		"substituted":              {info: source(tree, func(i *narstore.PathInfo) { i.CA = "" }), want: "not built on this machine"},
		"text":                     {info: source(text, asItIs)},
		"flat file":                {info: source(flat, asItIs)},
		"tree":                     {info: source(tree, asItIs)},
		"other references":         {info: source(text, func(i *narstore.PathInfo) { i.References = nil }), want: "does not prove"},
		"other NAR hash":           {info: source(tree, func(i *narstore.PathInfo) { i.NARHash[0] ^= 1 }), want: "does not prove"},
		"other NAR hash of a file": {info: source(flat, func(i *narstore.PathInfo) { i.NARHash[0] ^= 1 }), want: "does not prove"},
		"other file": {
			info: source(flat, func(i *narstore.PathInfo) { i.NARHash = sha256.Sum256(flip(n.Dump(t, flat))) }),
			nar:  flip(n.Dump(t, flat)), want: "does not prove",
		},
		"other address": {info: source(flat, func(i *narstore.PathInfo) { i.CA = source(tree, asItIs).CA }), want: "does not prove"},
		"no address":    {info: source(tree, func(i *narstore.PathInfo) { i.CA = "signed by the queen" }), want: "does not prove"},
		"huge":          {info: source(flat, func(i *narstore.PathInfo) { i.NARSize = 1 << 40 }), want: "does not prove"},
		"cut off":       {info: source(flat, asItIs), nar: n.Dump(t, flat)[:100], want: "could not be checked"},
	} {
		t.Run(name, func(t *testing.T) {
			store := newMemory(tt.info)
			if store.nars[tt.info.Path.HashPart()] = tt.nar; tt.nar == nil && !tt.info.Ultimate {
				store.nars[tt.info.Path.HashPart()] = n.Dump(t, tt.info.Path)
			}
			err := vouch.New(store, bucket{}, zap.NewNop()).Check(t.Context(), tt.info)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Check() = %v, want %q", err, tt.want)
			}
		})
	}
}

// A clock that is years ahead for a day does not make a path that was missed lately one
// that has long been gone.
func TestAClockThatIsAheadCostsNoSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		info := built(t, "gone")
		store, kept := newMemory(info), bucket{}
		if err := add(t, vouch.New(store, kept, zap.NewNop()), info, newKey(t, "own-1")); err != nil {
			t.Fatal(err)
		}
		delete(store.infos, info.Path.HashPart())
		run := func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			_ = vouch.New(store, kept, zap.NewNop()).Run(ctx)
		}
		run()
		year := time.Now().Format("2006")
		ahead := func(from, to string) {
			for part, entry := range kept {
				kept[part] = bytes.Replace(entry, []byte(`"absent":"`+from), []byte(`"absent":"`+to), 1)
			}
		}
		for range 3 {
			ahead(year, "1989") // as a clock of some years later finds it
			run()
			run()
			ahead("1989", year)
			run()
			time.Sleep(24 * time.Hour)
		}
		if len(kept) != 1 {
			t.Error("the signature is gone")
		}
	})
}

// TestSignaturesOfAbsentPathsGo is about garbage: after 30 days, however often
// the node was restarted.
func TestSignaturesOfAbsentPathsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		stays, goes, returns, changed := built(t, "stays"), built(t, "goes"), built(t, "returns"), built(t, "changed")
		key := newKey(t, "own-1")
		store, kept := newMemory(stays, goes, returns, changed), bucket{}
		s := vouch.New(store, kept, zap.NewNop())
		for _, info := range store.infos {
			if err := add(t, s, info, key); err != nil {
				t.Fatal(err)
			}
		}
		run := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			if err := vouch.New(store, kept, zap.NewNop()).Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Run() = %v", err)
			}
		}
		delete(store.infos, goes.Path.HashPart())
		delete(store.infos, returns.Path.HashPart())
		other := *changed
		other.NARHash[0] ^= 1
		store.infos[changed.Path.HashPart()] = &other
		for range 29 {
			run(day)
		}
		if len(kept) != 4 {
			t.Errorf("after 29 days there are %d entries, want all 4", len(kept))
		}
		store.infos[returns.Path.HashPart()] = returns
		run(day)
		delete(store.infos, returns.Path.HashPart())
		// A store that cannot be read says nothing.
		store.err = io.ErrUnexpectedEOF
		run(40 * day)
		if len(kept) != 3 {
			t.Errorf("the store could not be read, but for one path, and there are %d entries, want 3", len(kept))
		}
		store.err = narstore.ErrNotFound
		run(day)
		run(day)
		store.infos[returns.Path.HashPart()] = returns
		for _, info := range []*narstore.PathInfo{stays, returns} {
			if got := signers(t, s, info.Path, key); len(got) != 1 {
				t.Errorf("%s has the signatures of %v, want one", info.Path, got)
			}
		}
		if len(kept) != 2 {
			t.Errorf("%d entries are kept, want those of the 2 paths", len(kept))
		}
	})
}
