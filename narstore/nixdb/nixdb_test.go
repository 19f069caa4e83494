package nixdb_test

import (
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/nixdb"
	"github.com/nar-p2p/nar-p2p/narstore/storetest"
)

// poll is short, so that tests need not wait.
const poll = 5 * time.Millisecond

func open(t *testing.T, cfg nixdb.Config) *nixdb.Store {
	t.Helper()
	cfg.Poll = poll
	store, err := nixdb.Open(cfg, zaptest.NewLogger(t))
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

// newFixture returns a store that reads Nix's own. Without a configuration it
// reads the database.
func newFixture(t *testing.T, n *storetest.Nix, cfg nixdb.Config) storetest.Fixture {
	t.Helper()
	cfg.Root = n.Root
	return storetest.Fixture{
		Store: open(t, cfg),
		Nix:   n,
		Remove: func(t *testing.T, paths ...nix.StorePath) {
			t.Helper()
			n.Delete(t, paths...)
		},
		Sign: func(t *testing.T, keyFile string, paths ...nix.StorePath) {
			t.Helper()
			args := []string{"store", "sign", "--key-file", keyFile}
			for _, path := range paths {
				args = append(args, path.String())
			}
			n.Run(t, "nix", args...)
		},
	}
}

func TestDatabaseConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Fixture {
		t.Helper()
		return newFixture(t, storetest.NewNix(t), nixdb.Config{})
	})
}

func TestDaemonConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Fixture {
		t.Helper()
		n := storetest.NewNix(t)
		// Without a database only the daemon is left.
		return newFixture(t, n, nixdb.Config{StateDir: t.TempDir(), DaemonSocket: startDaemon(t, n)})
	})
}
