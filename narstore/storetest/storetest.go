// Package storetest is the conformance suite of narstore.Store. Its stores are
// made and changed by real Nix, which is also the oracle for what they must
// say.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// patience is how long the suite waits for what must come: never long, unless
// it does not come.
const patience = time.Minute

// Fixture is an empty store under test, and what changes it.
type Fixture struct {
	Store narstore.Store
	// Nix is the store in which paths are made.
	Nix *Nix
	// Publish brings paths from Nix to Store. Nil where Store shows Nix's own.
	Publish func(t *testing.T, paths ...nix.StorePath)
	// Remove removes paths from Store.
	Remove func(t *testing.T, paths ...nix.StorePath)
	// Sign adds signatures to paths in Store.
	Sign func(t *testing.T, keyFile string, paths ...nix.StorePath)
}

// Run holds the stores that newFixture makes to the contract of narstore.Store.
func Run(t *testing.T, newFixture func(t *testing.T) Fixture) {
	t.Helper()
	for name, test := range map[string]func(suite){
		"Info":               suite.info,
		"Open":               suite.open,
		"OpenRemoved":        suite.openRemoved,
		"Follow":             suite.follow,
		"FollowReturnsError": suite.followReturnsError,
		"ConcurrentReaders":  suite.concurrentReaders,
	} {
		t.Run(name, func(t *testing.T) { test(suite{t, newFixture(t)}) })
	}
}

// suite is one of the suite's tests under way.
type suite struct {
	*testing.T
	Fixture
}

func (s suite) publish(paths ...nix.StorePath) {
	s.Helper()
	if s.Publish != nil {
		s.Publish(s.T, paths...)
	}
}

// addTree makes a path and publishes it.
func (s suite) addTree(name string) nix.StorePath {
	s.Helper()
	path := s.Nix.AddTree(s, name, name)
	s.publish(path)
	return path
}

func (s suite) info() {
	referenced, referrer := s.Nix.AddPair(s)
	s.publish(referenced, referrer)
	keyFile, public := newKey(s.T)
	s.Sign(s.T, keyFile, referrer)

	info, err := s.Store.Info(s.Context(), referrer.HashPart())
	if err != nil {
		s.Fatalf("Info(%s) = %v", referrer, err)
	}
	dump := s.Nix.Dump(s, referrer)
	want := &narstore.PathInfo{
		Path:       referrer,
		NARHash:    sha256.Sum256(dump),
		NARSize:    int64(len(dump)),
		References: []nix.StorePath{referenced},
	}
	diff := cmp.Diff(want, info, cmp.AllowUnexported(nix.StorePath{}), cmpopts.IgnoreFields(*want, "Signatures", "CA"))
	if diff != "" {
		s.Errorf("Info(%s) differs (-want +got):\n%s", referrer, diff)
	}
	if !strings.HasPrefix(info.CA, "text:sha256:") {
		s.Errorf("Info(%s).CA = %q, want one of a text", referrer, info.CA)
	}
	if got := info.Narinfo().SignedBy([]narinfo.PublicKey{public}); len(got) != 1 {
		s.Errorf("Info(%s) has no valid signature of %s in %v", referrer, public, info.Signatures)
	}
	if _, err := s.Store.Info(s.Context(), nix.HashPart{1}); !errors.Is(err, narstore.ErrNotFound) {
		s.Errorf("Info of no path = %v, want ErrNotFound", err)
	}
}

func (s suite) open() {
	path := s.addTree("tree")
	info, err := s.Store.Info(s.Context(), path.HashPart())
	if err != nil {
		s.Fatal(err)
	}
	if err := checkNAR(s.Context(), s.Store, info, s.Nix.Dump(s, path)); err != nil {
		s.Error(err)
	}
}

// checkNAR opens a NAR and compares it with what it should be.
func checkNAR(ctx context.Context, store narstore.Store, info *narstore.PathInfo, want []byte) error {
	nar, err := store.Open(ctx, info)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(io.NewSectionReader(nar, 0, nar.Size()+1))
	switch {
	case err != nil:
	case !bytes.Equal(got, want):
		err = errors.New("NAR differs from `nix-store --dump`")
	case nix.NARHash(sha256.Sum256(got)) != info.NARHash:
		err = errors.New("NAR does not have the hash of its record")
	}
	for at := 0; at < len(want) && err == nil; at += len(want)/50 + 1 {
		part := make([]byte, min(1000, len(want)-at))
		if _, err = nar.ReadAt(part, int64(at)); err == nil && !bytes.Equal(part, want[at:at+len(part)]) {
			err = errors.New("a part of the NAR differs from the whole")
		}
	}
	return errors.Join(err, nar.Close())
}

func (s suite) openRemoved() {
	path := s.addTree("tree")
	info, err := s.Store.Info(s.Context(), path.HashPart())
	if err != nil {
		s.Fatal(err)
	}
	s.Remove(s.T, path)
	if _, err := s.Store.Open(s.Context(), info); !errors.Is(err, narstore.ErrNotFound) {
		s.Errorf("Open after removal = %v, want ErrNotFound", err)
	}
	if _, err := s.Store.Info(s.Context(), path.HashPart()); !errors.Is(err, narstore.ErrNotFound) {
		s.Errorf("Info after removal = %v, want ErrNotFound", err)
	}
}

func (s suite) follow() {
	first := s.addTree("first")
	referenced, referrer := s.Nix.AddPair(s)
	s.publish(referenced, referrer)
	keyFile, public := newKey(s.T)

	v := Watch(s, s.Store)
	v.Until("settled with all paths", func() bool { return v.settled && v.Has(first, referenced, referrer) })
	if diff := cmp.Diff([]nix.StorePath{referenced}, v.Paths[referrer].References, cmp.AllowUnexported(nix.StorePath{})); diff != "" {
		s.Errorf("references differ (-want +got):\n%s", diff)
	}

	second := s.addTree("second")
	v.Until("a new path", func() bool { return v.Has(first, referenced, referrer, second) })

	s.Sign(s.T, keyFile, first)
	v.Until("a new signature", func() bool {
		return len(v.Paths[first].Narinfo().SignedBy([]narinfo.PublicKey{public})) == 1
	})

	s.Remove(s.T, first)
	v.Until("a removal", func() bool { return v.Has(referenced, referrer, second) })

	// Removed and put back, perhaps too fast to be seen in between.
	s.Remove(s.T, second)
	second = s.addTree("second")
	third := s.addTree("third")
	v.Until("a path that came back", func() bool { return v.Has(referenced, referrer, second, third) })
}

func (s suite) followReturnsError() {
	s.addTree("tree")
	enough := errors.New("enough")
	if err := s.Store.Follow(s.Context(), func(narstore.Update) error { return enough }); !errors.Is(err, enough) {
		s.Errorf("Follow = %v, want the error of its function", err)
	}
	ctx, cancel := context.WithCancel(s.Context())
	err := s.Store.Follow(ctx, func(narstore.Update) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		s.Errorf("Follow = %v, want context.Canceled", err)
	}
}

func (s suite) concurrentReaders() {
	const readers, rounds = 4, 10
	paths := []nix.StorePath{s.addTree("one"), s.addTree("two")}
	dumps := [][]byte{s.Nix.Dump(s, paths[0]), s.Nix.Dump(s, paths[1])}
	v := Watch(s, s.Store)
	group, ctx := errgroup.WithContext(s.Context())
	for range readers {
		group.Go(func() error {
			for i := range rounds {
				info, err := s.Store.Info(ctx, paths[i%2].HashPart())
				if err != nil {
					return err
				}
				if err := checkNAR(ctx, s.Store, info, dumps[i%2]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	third := s.addTree("three")
	if err := group.Wait(); err != nil {
		s.Error(err)
	}
	v.Until("all paths", func() bool { return v.Has(paths[0], paths[1], third) })
}

// View is what a Follow has told of.
type View struct {
	// Paths are the valid ones, after the updates up to now.
	Paths   map[nix.StorePath]*narstore.PathInfo
	settled bool

	tb      testing.TB
	updates chan narstore.Update
}

// Watch follows a store until the test ends.
func Watch(tb testing.TB, store narstore.Store) *View {
	tb.Helper()
	v := &View{Paths: make(map[nix.StorePath]*narstore.PathInfo), tb: tb, updates: make(chan narstore.Update)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- store.Follow(ctx, func(u narstore.Update) error {
			select {
			case v.updates <- u:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			tb.Errorf("Follow = %v, want context.Canceled", err)
		}
	})
	return v
}

// Until applies updates until ok is true.
func (v *View) Until(what string, ok func() bool) {
	v.tb.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !ok() {
		select {
		case u := <-v.updates:
			v.apply(u)
		case <-limit.C:
			v.tb.Fatalf("Follow has not told of %s; it knows of %d paths", what, len(v.Paths))
		}
	}
}

func (v *View) apply(u narstore.Update) {
	v.tb.Helper()
	if v.settled && !u.Settled {
		v.tb.Error("Follow is settled no longer")
	}
	v.settled = u.Settled
	for _, info := range u.Added {
		v.Paths[info.Path] = info
	}
	for _, part := range u.Removed {
		told := len(v.Paths)
		maps.DeleteFunc(v.Paths, func(p nix.StorePath, _ *narstore.PathInfo) bool { return p.HashPart() == part })
		if len(v.Paths) == told {
			v.tb.Errorf("Follow removes %s, of which it has not told", part)
		}
	}
}

// Has reports whether exactly these paths are valid.
func (v *View) Has(paths ...nix.StorePath) bool {
	return len(v.Paths) == len(paths) && !slices.ContainsFunc(paths, func(p nix.StorePath) bool { return v.Paths[p] == nil })
}

// newKey writes a secret key into a file.
func newKey(t *testing.T) (file string, public narinfo.PublicKey) {
	t.Helper()
	key, err := narinfo.GenerateSecretKey("storetest-1")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key.Text()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, key.Public()
}
