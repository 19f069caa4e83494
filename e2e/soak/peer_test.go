package soak

import (
	"context"
	"crypto/sha256"
	"io"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// visit has a new peer come, fetch a NAR, and go.
func (s *soak) visit(record *narinfo.Info) {
	s.t.Helper()
	node, err := lab.NewPeer(p2p.Config{Profile: p2p.Consume, Bootstrap: []peer.AddrInfo{s.node.AddrInfo()}}, nil)
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
