// Package budget bounds the memory that NARs take on their way, all together:
// windows of transfers, and NARs that are held until they are verified. Each
// asks before it takes.
//
// Three uses share one total. What a transfer needs to go on at all (Least) may
// take the last byte. NARs that are held whole (Held) leave an eighth for that,
// and windows that grow (Window) a quarter, so that neither can keep the others
// from getting anything. Nobody waits for a window to grow: it goes on with what
// it has.
package budget

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Default is the total in bytes where nothing is configured.
const Default = 256 << 20

// Use is what memory is for.
type Use int

const (
	// Least is what a transfer cannot go on without.
	Least Use = iota
	// Held is for NARs that are held until they are verified.
	Held
	// Window is for what makes a transfer faster.
	Window
	uses = iota // how many there are
)

func (u Use) String() string { return [...]string{"least", "held", "window"}[u] }

// spare is which part of the total a use leaves to those before it.
func (u Use) spare(total int64) int64 { return [...]int64{0, total / 8, total / 4}[u] }

// Budget is an amount of memory. It is safe for concurrent use.
type Budget struct {
	total int64

	mu   sync.Mutex
	used [uses]int64
	sum  int64 // of used
	// waiting are in the order in which they came.
	waiting []*waiter
}

// waiter waits for n bytes; granted is closed when it has them.
type waiter struct {
	use     Use
	n       int64
	granted chan struct{}
}

// New returns a budget of this many bytes; 0 is Default.
func New(total int64) *Budget {
	if total == 0 {
		total = Default
	}
	return &Budget{total: total}
}

// TryAcquire takes n bytes if they are free, and reports whether it did.
func (b *Budget) TryAcquire(use Use, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.take(use, n)
}

// Acquire takes n bytes, and waits for them until ctx ends. Those who wait for
// the same use are served in the order in which they came. More than can ever be
// free is an error at once.
func (b *Budget) Acquire(ctx context.Context, use Use, n int64) error {
	b.mu.Lock()
	if n > b.total-use.spare(b.total) {
		b.mu.Unlock()
		return fmt.Errorf("budget: %d bytes of %d in all", n, b.total)
	}
	if !b.awaited(use) && b.take(use, n) {
		b.mu.Unlock()
		return nil
	}
	w := &waiter{use: use, n: n, granted: make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.granted: // at the last moment: nobody will know of it
		b.give(use, n)
	default:
		b.leave(w)
	}
	b.serve()
	return context.Cause(ctx)
}

// Release gives n bytes back.
func (b *Budget) Release(use Use, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.give(use, n)
	b.serve()
}

// Used returns how many bytes a use takes now.
func (b *Budget) Used(use Use) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used[use]
}

// take takes n bytes if they are free; mu is held.
func (b *Budget) take(use Use, n int64) bool {
	if b.sum+n > b.total-use.spare(b.total) {
		return false
	}
	b.used[use] += n
	b.sum += n
	return true
}

// give is the reverse of take; mu is held.
func (b *Budget) give(use Use, n int64) {
	b.used[use] -= n
	b.sum -= n
	if b.used[use] < 0 {
		panic("budget: more given back than taken")
	}
}

// awaited reports whether somebody waits for this use; mu is held.
func (b *Budget) awaited(use Use) bool {
	for _, w := range b.waiting {
		if w.use == use {
			return true
		}
	}
	return false
}

// serve grants what has become possible. Whoever is first of a use holds up the
// others of it, or a large NAR would never have its turn; mu is held.
func (b *Budget) serve() {
	var heldUp [uses]bool
	left := b.waiting[:0]
	for _, w := range b.waiting {
		if !heldUp[w.use] && b.take(w.use, w.n) {
			close(w.granted)
			continue
		}
		heldUp[w.use] = true
		left = append(left, w)
	}
	clear(b.waiting[len(left):])
	b.waiting = left
}

// leave ends the waiting of one; mu is held.
func (b *Budget) leave(gone *waiter) {
	left := b.waiting[:0]
	for _, w := range b.waiting {
		if w != gone {
			left = append(left, w)
		}
	}
	clear(b.waiting[len(left):])
	b.waiting = left
}

var _ prometheus.Collector = (*Budget)(nil)

var (
	usedDesc = prometheus.NewDesc("nar_p2p_memory_used_bytes",
		"Memory of NARs on their way: what transfers cannot go on without, NARs held until they are verified, and windows.",
		[]string{"use"}, nil)
	totalDesc = prometheus.NewDesc("nar_p2p_memory_limit_bytes", "What nar_p2p_memory_used_bytes may be in all.", nil, nil)
)

// Describe implements prometheus.Collector.
func (b *Budget) Describe(descs chan<- *prometheus.Desc) {
	descs <- usedDesc
	descs <- totalDesc
}

// Collect implements prometheus.Collector.
func (b *Budget) Collect(metrics chan<- prometheus.Metric) {
	for use := range Use(uses) {
		metrics <- prometheus.MustNewConstMetric(usedDesc, prometheus.GaugeValue, float64(b.Used(use)), use.String())
	}
	metrics <- prometheus.MustNewConstMetric(totalDesc, prometheus.GaugeValue, float64(b.total))
}
