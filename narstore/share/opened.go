package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/nar-p2p/nar-p2p/narstore"
)

// opened holds the NARs that are open, each once: all who read the same NAR
// share its layout and its descriptors.
type opened struct {
	mu   sync.Mutex
	nars map[Key]*openNAR
}

// openNAR is a NAR that is being opened or is open.
type openNAR struct {
	users int
	// cancel ends the opening.
	cancel context.CancelFunc
	// ready is closed when nar or err is set.
	ready chan struct{}
	nar   narstore.NAR
	err   error
}

// use returns the NAR with this key, which open opens where nobody has it open.
// It calls gone, beside the error, where a read finds that the files are no
// longer those that were opened, or cannot be read.
func (o *opened) use(
	ctx context.Context, key Key, open func(context.Context) (narstore.NAR, error), gone func(error),
) (narstore.NAR, error) {
	n := o.join(ctx, key, open)
	select {
	case <-n.ready:
	case <-ctx.Done():
		o.leave(key, n)
		return nil, ctx.Err()
	}
	if n.err != nil {
		o.leave(key, n)
		return nil, n.err
	}
	return &usedNAR{
		NAR:   n.nar,
		leave: sync.OnceFunc(func() { o.leave(key, n) }),
		gone: func(err error) {
			o.forget(key, n)
			gone(err)
		},
	}, nil
}

// join becomes a user of the NAR.
func (o *opened) join(ctx context.Context, key Key, open func(context.Context) (narstore.NAR, error)) *openNAR {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := o.nars[key]; n != nil {
		n.users++
		return n
	}
	n := &openNAR{users: 1, ready: make(chan struct{})}
	o.nars[key] = n
	// Not the caller's context: others may outlast it.
	ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		nar, err := open(ctx)
		o.mu.Lock()
		defer o.mu.Unlock()
		if n.nar, n.err = nar, err; err != nil {
			o.drop(key, n) // whoever comes now tries again
		} else if n.users == 0 {
			_ = nar.Close() // nobody is left to hear of it
		}
		close(n.ready)
	}()
	return n
}

// leave ends a use.
func (o *opened) leave(key Key, n *openNAR) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n.users--; n.users > 0 {
		return
	}
	n.cancel()
	o.drop(key, n)
	if n.nar != nil {
		_ = n.nar.Close() // nothing was written that this could lose
	}
}

// forget lets whoever comes next open the NAR anew.
func (o *opened) forget(key Key, n *openNAR) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(key, n)
}

// drop is forget with mu held.
func (o *opened) drop(key Key, n *openNAR) {
	if o.nars[key] == n {
		delete(o.nars, key)
	}
}

// usedNAR is one use of an open NAR.
type usedNAR struct {
	narstore.NAR

	leave func()
	gone  func(error)
}

// ReadAt reads, and takes note where the files are no longer what was opened.
func (n *usedNAR) ReadAt(p []byte, off int64) (int, error) {
	got, err := n.NAR.ReadAt(p, off)
	if errors.Is(err, io.EOF) && got < len(p) && off+int64(got) < n.Size() {
		err = fmt.Errorf("%w: NAR ends at %d of %d bytes", narstore.ErrChanged, off+int64(got), n.Size())
	}
	if errors.Is(err, narstore.ErrChanged) || errors.Is(err, fs.ErrPermission) {
		n.gone(err)
	}
	return got, err
}

// Close ends the use.
func (n *usedNAR) Close() error {
	n.leave()
	return nil
}
