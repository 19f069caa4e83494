package substituter

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// maxAhead bounds the lookups ahead at once. A server of HTTP/2 should allow
	// 100 streams (RFC 9113, 6.5.2), of which some stay free for Nix's own
	// requests.
	maxAhead = 96
	// maxAheadQueue bounds the hash parts that wait for that: the largest
	// genuine records have about 4,000 references.
	maxAheadQueue = 4 << 10
	// turnedAway is how long Nix may be silent before it is taken to have got
	// what it wanted. Between two questions of one walk it takes milliseconds.
	turnedAway = time.Second
	// rememberAhead is how long what was looked up ahead is not looked up again,
	// and how long Nix has to ask for it before it counts as wasted.
	rememberAhead = time.Minute
)

// Events of looking ahead, as metrics call them.
const (
	aheadStarted = "started" // a lookup
	aheadUsed    = "used"    // Nix asked for what was looked up
	aheadWasted  = "wasted"  // Nix did not, for a minute
	aheadDropped = "dropped" // never looked up, since Nix turned away or there was too much
)

// prefetcher looks up the references of the records that Nix is given, before
// Nix asks for them, so that a walk through a closure does not wait for every
// path in turn.
//
// It looks one step ahead, and any number of steps while Nix follows: has asked
// for something that was looked up ahead. Once Nix has turned away, which is to
// ask nothing for a second, what still waits is dropped.
//
// A lookup ahead is the lookup of a request, with the same rules of who may be
// asked, and a request for the same path joins it. It is not made where Nix will
// not ask: for what is valid in the local store, or while the store is silent.
type prefetcher struct {
	s *Server

	mu      sync.Mutex
	queue   []nix.HashPart // first in, first out
	workers int
	// seen is what was queued in the last minute, in that order.
	seen *simplelru.LRU[nix.HashPart, *ahead]
	// asking counts the requests of Nix that are under way; last is when the
	// latest came or ended.
	asking   int
	last     time.Time
	followed bool
}

// ahead is what became of a hash part that was queued.
type ahead struct {
	queued time.Time
	asked  bool // by Nix
	begun  bool // a lookup
	ended  bool // that lookup
}

func newPrefetcher(s *Server) *prefetcher {
	p := &prefetcher{s: s}
	seen, err := simplelru.NewLRU(maxRemembered, func(_ nix.HashPart, a *ahead) {
		if a.begun && !a.asked {
			s.counters.prefetch.add(aheadWasted)
		}
	})
	if err != nil {
		panic("substituter: " + err.Error()) // the size is positive
	}
	p.seen = seen
	return p
}

// ask looks up what Nix asks for.
func (p *prefetcher) ask(ctx context.Context, part nix.HashPart) (*rendered, error) {
	ctx, cancel := context.WithTimeout(ctx, p.s.setup().Deadline)
	defer cancel()
	joins := p.arrive(part)
	defer p.leave()
	r, err := p.s.lookup(ctx, part)
	if joins && errors.Is(err, ErrUnknown) && ctx.Err() == nil {
		// What was begun ahead came to its own deadline, not to this one.
		r, err = p.s.lookup(ctx, part)
	}
	return r, err
}

// arrive takes note of a request of Nix, and reports whether what it asks for
// is just being looked up ahead.
func (p *prefetcher) arrive(part nix.HashPart) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checkPresence()
	p.asking++
	p.last = time.Now()
	a, ok := p.seen.Peek(part)
	if !ok {
		return false
	}
	if !a.asked {
		a.asked, p.followed = true, true
		if a.begun {
			p.s.counters.prefetch.add(aheadUsed)
		}
	}
	return a.begun && !a.ended
}

func (p *prefetcher) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asking--
	p.last = time.Now()
}

// given takes note of a record that Nix is given out of memory, or after ask.
// Its references are looked up if it was asked for with GET; HEAD wants to know
// whether there is a path, and no more.
func (p *prefetcher) given(r *rendered, method string) {
	p.arrive(r.info.StorePath.HashPart())
	p.leave()
	if method == http.MethodGet {
		p.enqueue(r, true)
	}
}

// checkPresence forgets what is too long ago, and everything that waits where
// Nix has turned away.
func (p *prefetcher) checkPresence() {
	for {
		_, oldest, ok := p.seen.GetOldest()
		if !ok || time.Since(oldest.queued) <= rememberAhead {
			break
		}
		p.seen.RemoveOldest()
	}
	if p.asking > 0 || time.Since(p.last) <= turnedAway {
		return
	}
	for _, part := range p.queue {
		p.seen.Remove(part)
	}
	p.s.counters.prefetch.count(aheadDropped, len(p.queue))
	p.queue = nil
	p.followed = false
}

// enqueue queues the references of a record that Nix was given, or that was
// looked up ahead.
func (p *prefetcher) enqueue(r *rendered, given bool) {
	if p.s.setup().NoPrefetch || len(r.info.References) == 0 || p.s.rests() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checkPresence()
	if !given && !p.followed {
		return
	}
	now := time.Now()
	for _, ref := range r.info.References {
		part := ref.HashPart()
		if ref == r.info.StorePath || p.seen.Contains(part) {
			continue
		}
		if len(p.queue) == maxAheadQueue {
			p.s.counters.prefetch.add(aheadDropped)
			continue
		}
		p.seen.Add(part, &ahead{queued: now})
		p.queue = append(p.queue, part)
		if p.workers < maxAhead && p.s.tasks.request() {
			p.workers++
			go p.work()
		}
	}
}

// work looks up what is queued, until nothing is.
func (p *prefetcher) work() {
	defer p.s.tasks.end()
	for {
		part, ok := p.next()
		if !ok {
			return
		}
		if r := p.lookUp(part); r != nil {
			p.enqueue(r, false)
		}
	}
}

// next returns what to look up next. Where there is nothing, the worker is
// counted off.
func (p *prefetcher) next() (part nix.HashPart, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checkPresence()
	for len(p.queue) > 0 {
		part = p.queue[0]
		p.queue = p.queue[1:]
		if a, ok := p.seen.Peek(part); ok && !a.asked {
			return part, true
		}
	}
	p.workers--
	return part, false
}

// lookUp returns the record of a hash part, or nil.
func (p *prefetcher) lookUp(part nix.HashPart) *rendered {
	s := p.s
	if r := s.records.current(part); r != nil {
		return r
	}
	if _, known := s.absent.get(part); known {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.setup().Deadline)
	defer cancel()
	if _, err := s.askStore(ctx, part); !errors.Is(err, narstore.ErrNotFound) {
		return nil
	}
	p.begin(part)
	defer p.end(part)
	r, err := s.coalesce(ctx, part.String(), func(ctx context.Context) (*rendered, error) {
		if r := s.records.memory.get(part); r != nil {
			return r, nil
		}
		return s.find(ctx, part)
	})
	if err != nil {
		return nil
	}
	return r
}

// begin takes note that a lookup begins.
func (p *prefetcher) begin(part nix.HashPart) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.seen.Peek(part)
	if !ok || a.asked {
		return // Nix was faster
	}
	a.begun = true
	p.s.counters.prefetch.add(aheadStarted)
}

// end takes note that a lookup has ended.
func (p *prefetcher) end(part nix.HashPart) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.seen.Peek(part); ok {
		a.ended = true
	}
}
