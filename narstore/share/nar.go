package share

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// lazyNAR is a NAR that is opened by the first read: where a manifest is kept
// already, the files of its path need not even be listed.
type lazyNAR struct {
	size int64
	open func() (narstore.NAR, error)

	mu     sync.Mutex
	opened narstore.NAR // nil before
}

func newLazyNAR(size int64, open func() (narstore.NAR, error)) *lazyNAR {
	return &lazyNAR{size: size, open: open}
}

// Size returns the size that the store says.
func (n *lazyNAR) Size() int64 { return n.size }

func (n *lazyNAR) ReadAt(p []byte, off int64) (int, error) {
	nar, err := n.get()
	if err != nil {
		return 0, err
	}
	return nar.ReadAt(p, off)
}

func (n *lazyNAR) get() (narstore.NAR, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opened == nil {
		nar, err := n.open()
		if err != nil {
			return nil, err
		}
		n.opened = nar
	}
	return n.opened, nil
}

func (n *lazyNAR) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opened == nil {
		return nil
	}
	return n.opened.Close()
}

// verify reads a NAR and returns chunk.ErrCorrupt unless its bytes are those of
// the path's NAR hash.
func verify(ctx context.Context, nar narstore.NAR, info *narstore.PathInfo) error {
	if nar.Size() != info.NARSize {
		return fmt.Errorf("share: %s: NAR has %d bytes, want %d: %w", info.Path, nar.Size(), info.NARSize, chunk.ErrCorrupt)
	}
	sum := sha256.New()
	buffer := make([]byte, min(info.NARSize, 256<<10))
	for at := int64(0); at < info.NARSize; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := nar.ReadAt(buffer[:min(int64(len(buffer)), info.NARSize-at)], at)
		sum.Write(buffer[:n])
		at += int64(n)
		if errors.Is(err, io.EOF) && at < info.NARSize {
			return fmt.Errorf("share: %s: NAR ends at %d, want %d: %w", info.Path, at, info.NARSize, chunk.ErrCorrupt)
		} else if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("share: %s: read NAR at %d: %w", info.Path, at, err)
		}
	}
	if got := nix.NARHash(sum.Sum(nil)); got != info.NARHash {
		return fmt.Errorf("share: %s: NAR has hash %s, want %s: %w", info.Path, got, info.NARHash, chunk.ErrCorrupt)
	}
	return nil
}
