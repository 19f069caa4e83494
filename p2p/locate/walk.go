package locate

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"
)

const (
	// minWalks and maxWalks bound the walks through the DHT at one time. They are
	// few at first, as whoever a walk finds often has the rest too; each walk
	// that spares no other allows one more.
	minWalks = 4
	maxWalks = 16
	// walkTimeout bounds one walk. At 80 ms of round trip one that finds nothing
	// takes 0.9 s.
	walkTimeout = 10 * time.Second
	// deepInterval is how often a walk begins for more holders of a NAR than are
	// known. Whoever one finds is asked about the others that are fetched.
	deepInterval = 5 * time.Second
	// lingerTime is how long whoever waits for a record that no walk has found waits
	// for the walks of others: whom they find may have it.
	lingerTime = 2 * time.Second
	// offlineTTL is how long "not found" counts where the DHT had no peers.
	offlineTTL = 5 * time.Second
	// maxAddresses bounds the addresses that are taken from one provider record.
	maxAddresses = 16
	// maxNamed bounds the peers that are asked at one time because the DHT has
	// named them for one entry. When as many have said that they hold a NAR, no
	// more are asked.
	maxNamed = 4
)

// walks are the walks through the DHT: those to come, in their order, and those
// under way, of which there are at most width.
type walks struct {
	queue   []*entry
	running map[*entry]context.CancelFunc
	width   int
	// deep is when the next walk for more holders than are known may begin.
	deep time.Time
}

func newWalks() walks {
	return walks{running: make(map[*entry]context.CancelFunc), width: minWalks}
}

// enqueue has the DHT searched for an entry, if that is possible; mu is held.
func (f *Finder) enqueue(e *entry, now time.Time) {
	if !f.searchable(e, now) {
		f.advance(e, searched, now)
		return
	}
	e.step = searching
	f.open[e] = struct{}{}
	if _, running := f.walks.running[e]; !running {
		f.walks.queue = append(f.walks.queue, e)
		f.poke()
	}
}

// nextWalks begins the walks that can be made now, first those that somebody
// waits for; mu is held.
func (f *Finder) nextWalks(ctx context.Context, now time.Time, until func(time.Time)) (jobs []func()) {
	w := &f.walks
	slices.SortStableFunc(w.queue, func(a, b *entry) int { return min(b.waiters, 1) - min(a.waiters, 1) })
	var later []*entry
	for len(w.running) < w.width && len(w.queue) > 0 {
		e := w.queue[0]
		w.queue = w.queue[1:]
		switch {
		case e.step != searching:
		case now.Before(e.grace):
			later = append(later, e)
			until(e.grace)
		case len(e.questions) > 0 && now.Before(e.hold) && now.Sub(e.began) < f.patience.hold():
			later = append(later, e)
			until(e.hold)
		case e.key.kind == nars && f.alive(e) > 0 && !e.deep:
			f.advance(e, asked, now) // A peer found for another NAR holds this one too.
		case f.askAgain(e, now):
			until(e.due)
		case e.deep && f.alive(e) > 0 && now.Before(w.deep):
			later = append(later, e)
			until(w.deep)
		default:
			if e.deep && f.alive(e) > 0 {
				w.deep = now.Add(deepInterval)
			}
			walking, cancel := context.WithTimeout(ctx, walkTimeout)
			w.running[e] = cancel
			jobs = append(jobs, func() { f.walk(walking, e) })
		}
	}
	w.queue = append(later, w.queue...)
	return jobs
}

// askAgain asks the sources that have become known since they were asked, and
// reports whether there are any; mu is held.
func (f *Finder) askAgain(e *entry, now time.Time) bool {
	before := len(e.questions)
	sources, _ := f.sources(e.key.strangers, now)
	if f.put(e, now, sources...); len(e.questions) == before {
		return false
	}
	e.step, e.due = asking, now.Add(f.patience.sources(e.key.kind))
	return true
}

// walk looks an entry up in the DHT.
func (f *Finder) walk(ctx context.Context, e *entry) {
	start, found := time.Now(), 0
	for info := range f.cfg.DHT.FindProviders(ctx, e.key.cid()) {
		if len(info.Addrs) > 0 {
			found++
			f.named(e, info)
		}
	}
	cause := context.Cause(ctx)

	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.walks.running[e]()
	delete(f.walks.running, e)
	f.walks.width = min(f.walks.width+1, maxWalks)
	f.metrics.closure.walked()
	result, again := "nothing", negativeTTL
	switch {
	case found > 0:
		result = "found"
	case errors.Is(cause, context.Canceled):
		result, again = "cancelled", 0
	case cause != nil:
		result = "timeout"
	case f.cfg.DHT.Size() == 0:
		result, again = "offline", offlineTTL
	}
	f.metrics.walks.WithLabelValues(e.key.kind.String(), result).Inc()
	f.log.Debug("walk", zap.Stringer("kind", e.key.kind), zap.Stringer("key", e.key),
		zap.String("result", result), zap.Int("providers", found), zap.Duration("took", now.Sub(start)))

	e.walkAgain = now.Add(again)
	switch {
	case e.step != searching:
	case result == "cancelled": // It is wanted again.
		f.enqueue(e, now)
	default:
		if e.key.kind == records && found == 0 {
			e.linger = now.Add(lingerTime)
		}
		f.advance(e, searched, now)
		if len(e.holders) == 0 {
			e.expires = e.walkAgain
		}
	}
	f.poke()
}

// endLinger lets go an entry once no other walk may help it; mu is held.
func (f *Finder) endLinger(e *entry, now time.Time, until func(time.Time)) {
	if len(f.walks.running)+len(f.walks.queue) > 0 && now.Before(e.linger) {
		until(e.linger)
		return
	}
	e.linger = time.Time{}
	f.close(e)
	e.notify()
}

// named takes over a provider from the DHT.
func (f *Finder) named(e *entry, info peer.AddrInfo) {
	f.cfg.Book.AddAddrs(info.ID, info.Addrs[:min(len(info.Addrs), maxAddresses)], positiveTTL)
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.key.kind == nars {
		f.hold(e, holder{peer: info.ID})
	}
	if len(e.named) < maxHolders && f.cfg.Usable(info.ID) && !slices.Contains(e.tried, info.ID) {
		e.named = append(e.named, info.ID)
		f.askNamed(e, time.Now())
	}
}

// askNamed asks the peers that the DHT has named for an entry, the best first,
// about that and everything else that is wanted; mu is held.
func (f *Finder) askNamed(e *entry, now time.Time) {
	asked, held := 0, 0
	for _, q := range e.questions {
		if q.named {
			asked++
		}
	}
	for _, h := range e.holders {
		if h.own {
			held++
		}
	}
	if e.key.kind == nars && held >= maxNamed {
		e.named = nil
	}
	for ; asked < maxNamed && len(e.named) > 0; asked++ {
		best := slices.MinFunc(e.named, f.compare)
		e.named = slices.DeleteFunc(e.named, func(p peer.ID) bool { return p == best })
		f.put(e, now, best)
		for i, q := range e.questions {
			if q.peer == best {
				e.questions[i].named = true
			}
		}
		f.introduce(best, now)
	}
}

// endWalks drops the walks that nobody needs. One that is under way goes on as
// long as anything is wanted: whoever it finds may have that; mu is held.
func (f *Finder) endWalks() {
	w := &f.walks
	w.queue = slices.DeleteFunc(w.queue, func(e *entry) bool { return e.step != searching })
	if len(w.running) == 0 {
		return
	}
	for e := range f.wanted {
		if e.key.strangers {
			return
		}
	}
	for _, cancel := range w.running {
		cancel()
	}
}
