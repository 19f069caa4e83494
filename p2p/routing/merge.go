package routing

import (
	"context"
	"iter"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Router finds out who provides a key. A DHT is one.
type Router interface {
	// FindProviders gives providers as they are found, until ctx ends.
	FindProviders(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo]
	// Size is the number of peers, or of servers, that can be asked.
	Size() int
}

var _ Router = (*DHT)(nil)

// Merge returns a router that asks all routers at once and gives what any of
// them finds, each peer once; those without an address come last.
func Merge(routers ...Router) Router {
	if len(routers) == 1 {
		return routers[0]
	}
	return merged(routers)
}

type merged []Router

// Size implements Router.
func (m merged) Size() int {
	n := 0
	for _, r := range m {
		n += r.Size()
	}
	return n
}

// FindProviders implements Router.
func (m merged) FindProviders(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		ctx, cancel := context.WithCancel(ctx)
		found := make(chan peer.AddrInfo)
		var searches sync.WaitGroup
		for _, r := range m {
			searches.Go(func() {
				for info := range r.FindProviders(ctx, key) {
					send(ctx, found, info)
				}
			})
		}
		go func() {
			searches.Wait()
			close(found)
		}()
		defer func() {
			cancel()
			for range found { // Until all have ended.
				continue
			}
		}()
		// What one knows without an address another may know with one.
		given, bare := make(map[peer.ID]struct{}), []peer.ID{}
		for info := range found {
			if _, ok := given[info.ID]; ok {
				continue
			}
			if len(info.Addrs) == 0 {
				bare = append(bare, info.ID)
				continue
			}
			given[info.ID] = struct{}{}
			if !yield(info) {
				return
			}
		}
		for _, p := range bare {
			if _, ok := given[p]; ok {
				continue
			}
			given[p] = struct{}{}
			if !yield(peer.AddrInfo{ID: p}) {
				return
			}
		}
	}
}
