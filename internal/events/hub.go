package events

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxSubscribers bounds who listens at once.
	maxSubscribers = 64
	// queueLength is how many events wait for one subscriber: those of some
	// seconds while Nix walks through a closure, about 300 KB.
	queueLength = 1024
	// keptProblems is how many problems are remembered for those who come later.
	keptProblems = 50
)

// ErrTooMany says that there are too many subscribers.
var ErrTooMany = errors.New("events: too many listen already")

// Hub passes events on. Its methods are safe for concurrent use. A nil *Hub
// takes events and drops them.
type Hub struct {
	watched atomic.Int32

	mu          sync.Mutex
	subscribers map[*Subscription]struct{}
	problems    []Event // the latest last
}

// NewHub returns a hub that nobody listens to.
func NewHub() *Hub { return &Hub{subscribers: make(map[*Subscription]struct{})} }

// Watched reports whether anybody listens: what costs something to make need not
// be published otherwise.
func (h *Hub) Watched() bool { return h != nil && h.watched.Load() > 0 }

// Publish passes an event on, with the time where it has none. It does not
// block.
func (h *Hub) Publish(e Event) {
	if h == nil || e.Kind != KindProblem && !h.Watched() {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.Kind == KindProblem {
		if len(h.problems) == keptProblems {
			h.problems = append(h.problems[:0], h.problems[1:]...)
		}
		h.problems = append(h.problems, e)
	}
	for s := range h.subscribers {
		s.push(e)
	}
}

// Problems returns the last problems, the latest last.
func (h *Hub) Problems() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Event{}, h.problems...)
}

// Subscribe returns a subscription to what is published from now on, which is to
// be closed. The error is ErrTooMany.
func (h *Hub) Subscribe() (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subscribers) == maxSubscribers {
		return nil, ErrTooMany
	}
	s := &Subscription{hub: h, ready: make(chan struct{}, 1)}
	h.subscribers[s] = struct{}{}
	h.watched.Store(int32(len(h.subscribers)))
	return s, nil
}

// Subscription is one listener's queue.
type Subscription struct {
	hub   *Hub
	ready chan struct{} // of one signal: the queue is not empty

	mu    sync.Mutex
	queue []Event // as a ring once it is full
	first int     // of the ring
	lost  uint64
}

func (s *Subscription) push(e Event) {
	s.mu.Lock()
	if len(s.queue) < queueLength {
		s.queue = append(s.queue, e)
	} else {
		s.queue[s.first] = e
		s.first = (s.first + 1) % queueLength
		s.lost++
	}
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Next waits for events and returns all that there are, the oldest first. Where
// older ones were lost, the first says how many.
func (s *Subscription) Next(ctx context.Context) ([]Event, error) {
	for {
		if got := s.Pending(); len(got) > 0 {
			return got, nil
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Pending is Next without waiting.
func (s *Subscription) Pending() (got []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 {
		got = append(got, Event{Time: time.Now(), Kind: KindLost, Lost: s.lost})
	}
	got = append(got, s.queue[s.first:]...)
	got = append(got, s.queue[:s.first]...)
	s.queue, s.first, s.lost = nil, 0, 0
	return got
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subscribers, s)
	s.hub.watched.Store(int32(len(s.hub.subscribers)))
}
