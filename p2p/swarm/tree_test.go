package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/manifests"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/narstore/state"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// treeStore is a store of one path, whose files lie at root.
type treeStore struct {
	root string
	info *narstore.PathInfo
}

func (s *treeStore) Info(_ context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	if part != s.info.Path.HashPart() {
		return nil, narstore.ErrNotFound
	}
	return s.info, nil
}

func (s *treeStore) Open(ctx context.Context, _ *narstore.PathInfo) (narstore.NAR, error) {
	return nar.Open(ctx, s.root)
}

func (s *treeStore) Follow(ctx context.Context, f func(narstore.Update) error) error {
	if err := f(narstore.Update{Added: []*narstore.PathInfo{s.info}, Settled: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// freshKeeper is the keeper of manifests, made anew for each.
type freshKeeper struct {
	db   *state.DB
	made int
	*manifests.Keeper
}

func (f *freshKeeper) renew() {
	f.made++
	f.Keeper = manifests.New(f.db.Bucket(fmt.Sprint("manifests", f.made)), zap.NewNop())
}

// catalogOf returns a running catalog of the tree at root, said to have this
// hash.
func catalogOf(tb testing.TB, root string, hash nix.NARHash) (*share.Catalog, *freshKeeper) {
	tb.Helper()
	db, err := state.Open(tb.TempDir(), zap.NewNop())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	key, err := narinfo.GenerateSecretKey("test-1")
	if err != nil {
		tb.Fatal(err)
	}
	path, err := nix.NewStorePath(nix.HashPart{1}, "tree")
	if err != nil {
		tb.Fatal(err)
	}
	info := &narstore.PathInfo{Path: path, NARHash: hash, NARSize: sizeOf(tb, root)}
	info.Signatures = []narinfo.Signature{key.Sign(info.Narinfo().Fingerprint())}
	keeper := &freshKeeper{db: db}
	keeper.renew()
	policy := &share.Policy{Keys: []narinfo.PublicKey{key.Public()}}
	catalog := share.New(&treeStore{root, info}, policy, keeper, db.Bucket("marks"), zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	var running errgroup.Group
	running.Go(func() error { return catalog.Run(ctx) })
	tb.Cleanup(func() {
		cancel()
		if err := running.Wait(); !errors.Is(err, context.Canceled) {
			tb.Errorf("Run() = %v", err)
		}
	})
	settled := errors.New("settled")
	err = catalog.Follow(ctx, func(c share.Change) error {
		if c.Settled {
			return settled
		}
		return nil
	})
	if !errors.Is(err, settled) {
		tb.Fatal(err)
	}
	return catalog, keeper
}

func sizeOf(tb testing.TB, root string) int64 {
	tb.Helper()
	tree, err := nar.Open(tb.Context(), root)
	if err != nil {
		tb.Fatal(err)
	}
	defer tree.Close()
	return tree.Size()
}

// plant makes a tree of files of 1 GiB in all.
func plant(b *testing.B, files int) (root string) {
	b.Helper()
	root = filepath.Join(b.TempDir(), "tree")
	const perDir = 100
	content := exchangetest.Bytes(1, 1<<30/files)
	for i := range files {
		dir := filepath.Join(root, fmt.Sprint(i/perDir))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		content[0] = byte(i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return root
}

// BenchmarkFirstByte asks a provider in good standing for a NAR of 1 GiB whose
// manifest it has not computed, and measures the time to the first byte.
func BenchmarkFirstByte(b *testing.B) {
	for _, files := range []int{1, 50_000} {
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) {
			root := plant(b, files)
			want := swarm.Want{Hash: nix.NARHash{1}, Size: sizeOf(b, root)} // not its hash, which would show at the end
			catalog, keeper := catalogOf(b, root, want.Hash)
			provider := exchangetest.NewHost(b)
			server := exchange.NewServer(provider, catalog, exchange.ServerConfig{}, zap.NewNop())
			exchangetest.Run(b, provider, server, exchange.Protocols("")[2])
			h := exchangetest.NewHost(b)
			exchangetest.Connect(b, h, provider)
			f := &finder{providers: []peer.AddrInfo{exchangetest.Info(provider)}}
			cfg := swarm.Config{Trusted: func(peer.ID, ma.Multiaddr) bool { return true }}
			s := swarm.New(exchange.NewClient(h, exchange.ClientConfig{}, zap.NewNop()), f, swarm.NewStanding(), cfg, zap.NewNop())
			var worst time.Duration
			for b.Loop() {
				start := time.Now()
				tr, err := s.Open(b.Context(), want)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := tr.Read(make([]byte, 1)); err != nil {
					b.Fatal(err)
				}
				if !tr.Earned() {
					b.Fatal("the provider's manifest has not earned that bytes are used")
				}
				worst = max(worst, time.Since(start))
				b.StopTimer()
				_ = tr.Close()
				for server.Stats().ActiveSessions > 0 {
					time.Sleep(time.Millisecond)
				}
				keeper.renew()
				b.StartTimer()
			}
			b.ReportMetric(float64(worst.Milliseconds()), "worst-ms")
		})
	}
}
