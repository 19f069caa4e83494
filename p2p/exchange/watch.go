package exchange

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/internal/moment"
)

// maxChecks bounds the peers that are checked at once, maxEars those that are
// kept in mind although nothing is awaited of them.
const (
	maxChecks = 8
	maxEars   = 256
)

// Watch calls check for each peer of whom something is awaited and nothing was
// heard for this long, and again while the silence lasts, until ctx ends. As long
// as nothing is awaited it costs nothing.
func (c *Client) Watch(ctx context.Context, silence time.Duration, check func(peer.ID)) error {
	var checks errgroup.Group
	checks.SetLimit(maxChecks)
	defer func() { _ = checks.Wait() }() // They have no errors.
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		silent, next := c.ears.silent(silence)
		for _, p := range silent {
			checks.Go(func() error {
				check(p)
				c.ears.checked(p)
				return nil
			})
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-c.ears.wake:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ears knows what is awaited of peers.
type ears struct {
	// wake is told when something is awaited of somebody.
	wake chan struct{}

	mu    sync.Mutex
	peers map[peer.ID]*ear
}

// ear is what is awaited of one peer.
type ear struct {
	// readers counts the streams that are being read.
	readers int
	// since is when the first of them began, or the peer was last heard.
	since time.Time
	// checked says that a check is under way.
	checked bool
}

func newEars() *ears { return &ears{wake: make(chan struct{}, 1), peers: make(map[peer.ID]*ear)} }

// begin counts a read.
func (e *ears) begin(p peer.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.peers[p]
	if l == nil {
		l = &ear{}
		e.peers[p] = l
		e.poke()
	}
	if l.readers == 0 {
		l.since = time.Now()
	}
	l.readers++
}

func (e *ears) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// end ends a read. The peer stays for a while: reads follow each other.
func (e *ears) end(p peer.ID, heard bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.peers[p]
	if heard {
		l.since = time.Now()
	}
	if l.readers--; l.readers == 0 && len(e.peers) > maxEars {
		delete(e.peers, p)
	}
}

// silent returns the peers to be checked, and when to look again; zero where
// nothing is awaited of anybody else.
func (e *ears) silent(silence time.Duration) (peers []peer.ID, next time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for p, l := range e.peers {
		due := l.since.Add(silence)
		switch {
		case l.checked:
		case l.readers == 0 && !now.Before(due):
			delete(e.peers, p)
		case !now.Before(due):
			l.checked = true
			peers = append(peers, p)
		case next.IsZero() || due.Before(next):
			next = due
		}
	}
	return peers, next
}

// checked begins the silence of a peer anew.
func (e *ears) checked(p peer.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.peers[p]; l != nil {
		l.checked, l.since = false, time.Now()
		e.poke()
	}
}

// heardStream is a stream whose reads are watched.
type heardStream struct {
	network.Stream

	ears *ears
	// at is when something last came.
	at moment.Moment
}

func (s *heardStream) Read(b []byte) (int, error) {
	p := s.Conn().RemotePeer()
	s.ears.begin(p)
	n, err := s.Stream.Read(b)
	s.ears.end(p, n > 0)
	if n > 0 {
		s.at.Set(time.Now())
	}
	return n, err
}

func (s *heardStream) last() time.Time { return s.at.Time() }
