package manifests

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
)

// computation is a manifest being computed and told to any number of followers.
type computation struct {
	source source
	cancel context.CancelFunc

	mu sync.Mutex
	// encoded only grows; the goroutine that computes may read it without mu.
	encoded []byte
	// grown is closed, and replaced, when encoded grew or the computation ended.
	grown chan struct{}
	ended bool
	root  chunk.Root
	err   error
}

// grow adds a piece of the encoding.
func (c *computation) grow(piece []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.encoded = append(c.encoded, piece...)
	c.tell()
	return nil
}

// finish ends the computation.
func (c *computation) finish(root chunk.Root, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended, c.root, c.err = true, root, err
	c.tell()
}

// tell wakes the followers. mu is held.
func (c *computation) tell() {
	close(c.grown)
	c.grown = make(chan struct{})
}

// follow emits the encoding from its start as it grows.
func (c *computation) follow(ctx context.Context, emit func(piece []byte) error) (chunk.Root, error) {
	told := 0
	for {
		c.mu.Lock()
		more, grown, ended := c.encoded[told:], c.grown, c.ended
		root, err := c.root, c.err
		c.mu.Unlock()
		if err := emitPieces(more, emit); err != nil {
			return chunk.Root{}, err
		}
		told += len(more)
		if ended {
			return root, err
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return chunk.Root{}, fmt.Errorf("manifests: %w", ctx.Err())
		}
	}
}

// errAbandoned is what a computation reads that nobody waits for any more.
var errAbandoned = errors.New("manifests: nobody waits for the manifest")

// source reads from any one of the NARs of those who wait, all of one hash.
type source struct {
	mu      sync.Mutex
	readers []*reader
}

// reader is one waiter's NAR.
type reader struct {
	mu      sync.Mutex // held during a read
	nar     narstore.NAR
	retired bool
}

func (s *source) ReadAt(p []byte, off int64) (int, error) {
	for {
		r := s.first()
		if r == nil {
			return 0, errAbandoned
		}
		if n, ok, err := r.readAt(p, off); ok {
			return n, err
		}
	}
}

func (s *source) first() *reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.readers) == 0 {
		return nil
	}
	return s.readers[0]
}

func (s *source) add(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = append(s.readers, r)
}

// remove takes r away and returns how many readers are left.
func (s *source) remove(r *reader) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.readers, r); i >= 0 {
		s.readers = slices.Delete(s.readers, i, i+1)
	}
	return len(s.readers)
}

// readAt is ReadAt of the NAR, unless the reader has retired.
func (r *reader) readAt(p []byte, off int64) (n int, ok bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.retired {
		return 0, false, nil
	}
	n, err = r.nar.ReadAt(p, off)
	return n, true, err
}

// retire waits for a read under way. There are none after it.
func (r *reader) retire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = true
}
