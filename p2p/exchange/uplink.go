package exchange

import (
	"container/heap"
	"context"
	"maps"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

const (
	// burstsPerSecond is how many bursts make up a second's bytes: timers are
	// late by a millisecond, of which fewer and larger bursts lose less.
	burstsPerSecond = 20
	// minBurst is the smallest burst, in bytes.
	minBurst = 16 << 10
	// lateness is how many bytes a flow may catch up on that comes late for its
	// turn: a single stream first has to write what it was granted before. In
	// longer absences nothing is saved up.
	lateness = 512 << 10
	// maxEnds is how many flows are remembered before those are forgotten that
	// have nothing to be remembered for.
	maxEnds = 256
)

// uplink bounds the bytes per second that all streams together send, and shares
// them out fairly: of the peers that want to be sent something each gets the
// same, however many streams it has. That is start-time fair queueing (Goyal,
// Vin and Cheng, SIGCOMM 1996).
type uplink struct {
	limiter *rate.Limiter

	mu sync.Mutex
	// taken says that somebody has the turn.
	taken bool
	// waiting are those who wait for it.
	waiting waiters
	// now is the virtual time, in bytes: the latest start of whoever had the turn.
	now int64
	// ends holds, for each flow, where what it was granted ends in virtual time.
	ends map[flow]int64
}

// flow is what shares are given to: a peer, whose queries are answered beside
// its NARs.
type flow struct {
	peer    peer.ID
	queries bool
}

// newUplink returns an uplink of this many bytes per second; 0 sets no limit.
func newUplink(bytesPerSecond int64) *uplink {
	u := &uplink{limiter: rate.NewLimiter(rate.Inf, 0), ends: make(map[flow]int64)}
	u.limit(bytesPerSecond)
	return u
}

// limit changes the limit, soon also for those who wait.
func (u *uplink) limit(bytesPerSecond int64) {
	if bytesPerSecond <= 0 {
		u.limiter.SetLimit(rate.Inf)
		return
	}
	u.limiter.SetBurst(int(max(minBurst, bytesPerSecond/burstsPerSecond)))
	u.limiter.SetLimit(rate.Limit(bytesPerSecond))
}

// perSecond returns the limit in bytes per second, and whether there is one.
func (u *uplink) perSecond() (limit float64, limited bool) {
	l := u.limiter.Limit()
	return float64(l), l != rate.Inf
}

// await waits until n bytes of a flow may be sent.
func (u *uplink) await(ctx context.Context, f flow, n int) error {
	if _, limited := u.perSecond(); !limited {
		return nil
	}
	w := u.join(f, n)
	select {
	case <-w.turn:
	case <-ctx.Done():
		u.leave(w)
		return ctx.Err()
	}
	defer u.pass()
	return u.spend(ctx, n)
}

// spend waits for n bytes of the limit.
func (u *uplink) spend(ctx context.Context, n int) error {
	for n > 0 {
		part := min(n, u.limiter.Burst())
		err := u.limiter.WaitN(ctx, part)
		if err == nil {
			n -= part
		} else if part <= u.limiter.Burst() { // else the limit was lowered meanwhile
			return err
		}
	}
	return nil
}

// join begins to wait for a turn.
func (u *uplink) join(f flow, n int) *waiter {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := &waiter{start: max(u.now-lateness, u.ends[f]), turn: make(chan struct{})}
	if len(u.ends) >= maxEnds {
		maps.DeleteFunc(u.ends, func(_ flow, end int64) bool { return end <= u.now-lateness })
	}
	u.ends[f] = w.start + int64(n)
	heap.Push(&u.waiting, w)
	if !u.taken {
		u.next()
	}
	return w
}

// leave ends the wait of one who has lost patience.
func (u *uplink) leave(w *waiter) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w.place == noPlace { // the turn has come
		u.next()
		return
	}
	heap.Remove(&u.waiting, w.place)
}

// pass gives the turn to the next.
func (u *uplink) pass() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next()
}

// next is pass with mu held.
func (u *uplink) next() {
	u.taken = len(u.waiting) > 0
	if !u.taken {
		u.now = 0
		clear(u.ends)
		return
	}
	w := u.waiting[0]
	heap.Pop(&u.waiting)
	u.now = max(u.now, w.start)
	close(w.turn)
}

// waiter is one who waits for the turn, which is closed when it comes.
type waiter struct {
	start int64
	turn  chan struct{}
	// place is where it stands in waiters.
	place int
}

// noPlace is the place of who has left.
const noPlace = -1

// waiters is a heap with the earliest start first.
type waiters []*waiter

func (w waiters) Len() int           { return len(w) }
func (w waiters) Less(i, j int) bool { return w[i].start < w[j].start }

func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].place, w[j].place = i, j
}

// Push is part of heap.Interface.
func (w *waiters) Push(x any) {
	added, ok := x.(*waiter)
	if !ok {
		panic("exchange: a waiter was expected")
	}
	added.place = len(*w)
	*w = append(*w, added)
}

// Pop is part of heap.Interface.
func (w *waiters) Pop() any {
	last := len(*w) - 1
	popped := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	popped.place = noPlace
	return popped
}
