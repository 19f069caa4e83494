package exchange

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"
)

// A server serves 16 queries and 16 sessions of one peer and sends the rest
// away, so they wait here for their turn.
const (
	// maxQueries is the number of queries under way with one peer. Half of what
	// the server serves leaves room for those that it has answered and not yet
	// ended.
	maxQueries = 8
	// maxSessions is the number of sessions with one peer. Nix fetches 16 NARs at
	// once. Their turns last until the server has ended them too, but for those
	// that are broken off.
	maxSessions = 14
	// sessionPatience is how long a session waits for its turn before the peer
	// counts as busy, to be asked again after sessionRetry: others may have time.
	sessionPatience = time.Second
	sessionRetry    = 2 * time.Second
)

// turns bounds how much is under way with each peer. Who is too many waits.
type turns struct {
	max   int64
	mu    sync.Mutex
	peers map[peer.ID]*turn
}

// turn is the queue at one peer; users take or wait for a place in it.
type turn struct {
	places *semaphore.Weighted
	users  int
}

func newTurns(limit int64) *turns { return &turns{max: limit, peers: make(map[peer.ID]*turn)} }

// users counts those that have a place with the peer or wait for one.
func (t *turns) users(p peer.ID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if queue := t.peers[p]; queue != nil {
		return queue.users
	}
	return 0
}

// take waits for a place. Where it returns no error, done gives it back.
func (t *turns) take(ctx context.Context, p peer.ID) (done func(), err error) {
	t.mu.Lock()
	queue := t.peers[p]
	if queue == nil {
		queue = &turn{places: semaphore.NewWeighted(t.max)}
		t.peers[p] = queue
	}
	queue.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if queue.users--; queue.users == 0 {
			delete(t.peers, p)
		}
	}
	if err := queue.places.Acquire(ctx, 1); err != nil {
		leave()
		return nil, err
	}
	return func() {
		queue.places.Release(1)
		leave()
	}, nil
}
