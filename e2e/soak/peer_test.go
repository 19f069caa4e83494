package soak

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// visit has a new peer come, fetch a NAR, and go.
func (s *soak) visit(record *narinfo.Info) {
	s.t.Helper()
	identity, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	store := dssync.MutexWrap(ds.NewMapDatastore())
	node, err := p2p.New(p2p.Config{
		Profile: p2p.Consume, Network: "lab", Identity: identity, Bootstrap: []peer.AddrInfo{s.node.AddrInfo()},
		Datastore: func(name string) ds.Batching { return namespace.Wrap(store, ds.NewKey(name)) },
	}, emptyShelf{}, zap.NewNop())
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = node.Run(ctx) }) // It ends with ctx.
	defer running.Wait()
	defer cancel()
	<-node.Ready()
	var failed error
	s.WaitFor("the peer to get its NAR", func() bool {
		failed = fetch(ctx, node, record)
		return failed == nil
	})
}

func fetch(ctx context.Context, node *p2p.Node, record *narinfo.Info) error {
	t, err := node.Open(ctx, swarm.Want{Hash: record.NARHash, Size: record.NARSize})
	if err != nil {
		return err
	}
	defer t.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, t); err != nil {
		return err
	}
	if nix.NARHash(sum.Sum(nil)) != record.NARHash {
		return narstore.ErrChanged
	}
	return nil
}

// emptyShelf shares nothing.
type emptyShelf struct{}

func (emptyShelf) Held(nix.NARHash) (root chunk.Root, rootKnown, held bool) { return }

func (emptyShelf) Narinfo(context.Context, nix.HashPart) (*narinfo.Info, error) {
	return nil, narstore.ErrNotFound
}

func (emptyShelf) Open(context.Context, nix.NARHash) (narstore.NAR, error) {
	return nil, narstore.ErrNotFound
}

func (emptyShelf) Manifest(context.Context, nix.NARHash, func([]byte) error) (chunk.Root, error) {
	return chunk.Root{}, narstore.ErrNotFound
}

func (emptyShelf) Follow(ctx context.Context, f func(share.Change) error) error {
	if err := f(share.Change{Settled: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}
