package nixdb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/nixdb"
	"github.com/nar-p2p/nar-p2p/narstore/storetest"
)

// benchPaths is the number of paths of a workstation's store.
const benchPaths = 30_000

// bigStore is a store of made-up paths without files, with ten references each.
func bigStore(b *testing.B) (*storetest.Nix, []nix.StorePath) {
	b.Helper()
	paths := make([]nix.StorePath, benchPaths)
	for i := range paths {
		path, err := nix.ParseBaseName(fmt.Sprintf("%032d-package-%d-1.0", i, i))
		if err != nil {
			b.Fatal(err)
		}
		paths[i] = path
	}
	var dump strings.Builder
	for i, path := range paths {
		fmt.Fprintf(&dump, "%s\n%064x\n%d\n\n%d\n", path, i, 1000+i, min(10, i))
		for j := range min(10, i) {
			fmt.Fprintln(&dump, paths[i*j/10])
		}
	}
	n := storetest.NewNix(b)
	cmd := n.Command(b, "nix-store", "--load-db", "--store", n.URL())
	cmd.Stdin = strings.NewReader(dump.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("nix-store --load-db: %v\n%s", err, out)
	}
	return n, paths
}

func openBig(b *testing.B, n *storetest.Nix, cfg nixdb.Config) *nixdb.Store {
	b.Helper()
	cfg.Root = n.Root
	store, err := nixdb.Open(cfg, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	return store
}

var errEnough = errors.New("enough")

// list follows a store until it is settled.
func list(ctx context.Context, store *nixdb.Store) (count int, err error) {
	err = store.Follow(ctx, func(u narstore.Update) error {
		if count += len(u.Added); u.Settled {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return count, err
}

func BenchmarkFirstListing(b *testing.B) {
	n, _ := bigStore(b)
	for name, cfg := range map[string]nixdb.Config{
		"database": {},
		"daemon":   {StateDir: b.TempDir(), DaemonSocket: startDaemon(b, n)},
	} {
		b.Run(name, func(b *testing.B) {
			store := openBig(b, n, cfg)
			b.ReportAllocs()
			for b.Loop() {
				if count, err := list(b.Context(), store); err != nil || count != benchPaths {
					b.Fatal(count, err)
				}
			}
		})
	}
}

func BenchmarkInfo(b *testing.B) {
	n, paths := bigStore(b)
	store := openBig(b, n, nixdb.Config{})
	i := 0
	for b.Loop() {
		if _, err := store.Info(b.Context(), paths[i%len(paths)].HashPart()); err != nil {
			b.Fatal(err)
		}
		i += 7919
	}
}
