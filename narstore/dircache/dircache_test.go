package dircache_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore/dircache"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// poll is short, so that tests need not wait.
const poll = 5 * time.Millisecond

func open(t *testing.T, cfg dircache.Config) *dircache.Store {
	t.Helper()
	cfg.Poll = poll
	if cfg.ScratchDir == "" {
		cfg.ScratchDir = t.TempDir()
	}
	store, err := dircache.Open(cfg, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// copyTo copies paths into a cache, as its operator does.
func copyTo(t *testing.T, n *storetest.Nix, dir, compression string, paths ...nix.StorePath) {
	t.Helper()
	args := []string{"copy", "--no-recursive", "--to", "file://" + dir + "?compression=" + compression}
	for _, path := range paths {
		args = append(args, path.String())
	}
	n.Run(t, "nix", args...)
}

func TestConforms(t *testing.T) {
	for _, compression := range []string{"none", "xz"} {
		t.Run(compression, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) storetest.Fixture {
				t.Helper()
				return newFixture(t, compression)
			})
		})
	}
}

func newFixture(t *testing.T, compression string) storetest.Fixture {
	t.Helper()
	n := storetest.NewNix(t)
	dir := t.TempDir()
	return storetest.Fixture{
		Store: open(t, dircache.Config{Dir: dir}),
		Nix:   n,
		Publish: func(t *testing.T, paths ...nix.StorePath) {
			t.Helper()
			copyTo(t, n, dir, compression, paths...)
		},
		Remove: func(t *testing.T, paths ...nix.StorePath) {
			t.Helper()
			for _, path := range paths {
				if err := os.Remove(filepath.Join(dir, path.HashPart().String()+".narinfo")); err != nil {
					t.Fatal(err)
				}
			}
		},
		Sign: func(t *testing.T, keyFile string, paths ...nix.StorePath) {
			t.Helper()
			args := []string{"store", "sign", "--key-file", keyFile}
			for _, path := range paths {
				args = append(args, path.String())
			}
			n.RunOn(t, "file://"+dir, "nix", args...)
		},
	}
}
