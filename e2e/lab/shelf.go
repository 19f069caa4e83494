package lab

import (
	"context"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p"
)

// emptyShelf shares nothing.
type emptyShelf struct{}

var _ p2p.Shelf = emptyShelf{}

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
