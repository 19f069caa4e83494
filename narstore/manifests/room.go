package manifests

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
)

const (
	// maxComputing is how many manifests are computed at once. Each occupies
	// about two cores, or the disk.
	maxComputing = 2
	// smallNAR is the size in bytes up to which a NAR need not wait for large
	// ones: one at a time is computed beside them, in some 20 ms.
	smallNAR = 8 << 20
	// roomPatience is how long a computation waits for others: the small ones
	// that a closure consists of follow each other within it.
	roomPatience = 500 * time.Millisecond
	// minRetry and maxRetry bound what is said of when to come back.
	minRetry = 250 * time.Millisecond
	maxRetry = 30 * time.Second
)

// room bounds the computations under way.
type room struct {
	// large and small hold one value for each computation.
	large, small chan struct{}
	patience     time.Duration

	mu      sync.Mutex
	running map[*progress]struct{}
}

func newRoom() *room {
	return &room{
		large:    make(chan struct{}, maxComputing),
		small:    make(chan struct{}, 1),
		patience: roomPatience,
		running:  make(map[*progress]struct{}),
	}
}

// progress is how far a computation has come.
type progress struct {
	size  int64
	begun time.Time
	// done is how many bytes were read.
	done atomic.Int64
}

// remaining estimates how long it goes on, or is zero where nothing was read.
func (p *progress) remaining() time.Duration {
	done := p.done.Load()
	if done == 0 {
		return 0
	}
	return time.Duration(float64(time.Since(p.begun)) / float64(done) * float64(p.size-done))
}

// counted is a NAR being read for a computation.
type counted struct {
	io.Reader

	progress *progress
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.progress.done.Add(int64(n))
	return n, err
}

// enter waits for room for a computation, which leave gives back. Where there
// is none for a while the error is a *narstore.BusyError.
func (r *room) enter(ctx context.Context, p *progress) (leave func(), err error) {
	small := r.small
	if p.size > smallNAR {
		small = nil // blocks for ever
	}
	patience := time.NewTimer(r.patience)
	defer patience.Stop()
	var place chan struct{}
	select {
	case small <- struct{}{}:
		place = small
	case r.large <- struct{}{}:
		place = r.large
	case <-patience.C:
		return nil, fmt.Errorf("manifests: %d are being computed: %w", maxComputing, &narstore.BusyError{RetryAfter: r.retryAfter()})
	case <-ctx.Done():
		return nil, fmt.Errorf("manifests: waiting to compute: %w", ctx.Err())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p.begun = time.Now()
	r.running[p] = struct{}{}
	return func() {
		r.mu.Lock()
		delete(r.running, p)
		r.mu.Unlock()
		<-place
	}, nil
}

// retryAfter estimates when the first computation ends.
func (r *room) retryAfter() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := maxRetry
	for p := range r.running {
		first = min(first, p.remaining())
	}
	return max(first, minRetry)
}

func (r *room) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.running)
}
