package swarm_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"

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

// plantCatalog returns a running catalog of a tree.
func plantCatalog(b *testing.B, files int) (*share.Catalog, *narstore.PathInfo, *freshKeeper) {
	b.Helper()
	db, err := state.Open(b.TempDir(), zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	key, err := narinfo.GenerateSecretKey("test-1")
	if err != nil {
		b.Fatal(err)
	}
	path, err := nix.NewStorePath(nix.HashPart{1}, "tree")
	if err != nil {
		b.Fatal(err)
	}
	root, size := plant(b, files)
	// The hash is not the NAR's, which shows at its end: nobody waits for that.
	info := &narstore.PathInfo{Path: path, NARHash: nix.NARHash{1}, NARSize: size}
	info.Signatures = []narinfo.Signature{key.Sign(info.Narinfo().Fingerprint())}
	keeper := &freshKeeper{db: db}
	keeper.renew()
	policy := &share.Policy{Keys: []narinfo.PublicKey{key.Public()}}
	catalog := share.New(&treeStore{root, info}, policy, keeper, db.Bucket("marks"), zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = catalog.Run(ctx)
	}()
	b.Cleanup(func() {
		cancel()
		<-ended
	})
	for catalog.Len() == 0 {
		time.Sleep(time.Millisecond)
	}
	return catalog, info, keeper
}

// plant makes a tree of files of 1 GiB in all.
func plant(b *testing.B, files int) (root string, size int64) {
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
	tree, err := nar.Open(b.Context(), root)
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close()
	return root, tree.Size()
}

// BenchmarkFirstByte asks a provider in good standing for a NAR of 1 GiB whose
// manifest it has not computed, and measures the time to the first byte.
func BenchmarkFirstByte(b *testing.B) {
	for _, files := range []int{1, 50_000} {
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) {
			catalog, info, keeper := plantCatalog(b, files)
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
				tr, err := s.Open(b.Context(), swarm.Want{Hash: info.NARHash, Size: info.NARSize})
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
