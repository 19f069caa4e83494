package sim

import (
	"context"
	"sync"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Trace watches one lookup. Give it to the lookup with Watch.
type Trace struct {
	mu sync.Mutex
	// depth is how many hosts had to be asked, one after the other, before this
	// one was known, itself included.
	depth map[peer.ID]int
	// Requests counts the answers that came, and Hops is the depth of the
	// first that brought a provider; 0 while none has.
	requests, hops int
}

type traceKey struct{}

// Watch returns a context for the lookup that the trace is to watch.
func (t *Trace) Watch(ctx context.Context) context.Context {
	t.depth = make(map[peer.ID]int)
	return context.WithValue(ctx, traceKey{}, t)
}

// Requests is how many hosts have answered.
func (t *Trace) Requests() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests
}

// Hops is how many hosts had to be asked one after the other until the first
// named a provider; 0 where none has.
func (t *Trace) Hops() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hops
}

func (t *Trace) note(from peer.ID, answer *pb.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	depth, ok := t.depth[from]
	if !ok {
		depth = 1 // from the asker's own table
		t.depth[from] = depth
	}
	if t.hops == 0 && len(answer.GetProviderPeers()) > 0 {
		t.hops = depth
	}
	for _, closer := range answer.GetCloserPeers() {
		p := peer.ID(closer.GetId())
		if _, ok := t.depth[p]; !ok {
			t.depth[p] = depth + 1
		}
	}
}
