package exchange

import (
	"context"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"
)

// maxQueries is the number of queries under way with one peer. Nix asks for 25
// narinfos at once; a server answers 16 queries of one peer and sends the rest
// away, so they wait here for their turn. Half of that leaves room for the
// queries that the server has answered and not yet ended.
const maxQueries = 8

// turns bounds how much is under way with each peer. Who is too many waits.
type turns struct {
	mu    sync.Mutex
	peers map[peer.ID]*turn
}

// turn is the queue at one peer; users take or wait for a place in it.
type turn struct {
	places *semaphore.Weighted
	users  int
}

func newTurns() *turns { return &turns{peers: make(map[peer.ID]*turn)} }

// take waits for a place. Where it returns no error, done gives it back.
func (t *turns) take(ctx context.Context, p peer.ID) (done func(), err error) {
	t.mu.Lock()
	queue := t.peers[p]
	if queue == nil {
		queue = &turn{places: semaphore.NewWeighted(maxQueries)}
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
