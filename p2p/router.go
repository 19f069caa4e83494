package p2p

import (
	"context"
	"crypto/sha256"
	"iter"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p/delegated"
	narhost "github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// route puts together whom to ask who provides what.
func (l *live) route() error {
	cfg := &l.cfg
	var routers []routing.Router
	if cfg.hasDHT() {
		if err := l.joinDHT(); err != nil {
			return err
		}
		routers = append(routers, l.dht)
	}
	if len(cfg.Endpoints) > 0 {
		clientCfg := &delegated.Config{
			Endpoints: cfg.Endpoints,
			Addresses: narhost.Announced(cfg.Listen),
			UserAgent: cfg.UserAgent,
		}
		if cfg.private() {
			clientCfg.Network = cfg.Network
		}
		var err error
		if l.endpoints, err = delegated.NewClient(clientCfg, l.log); err != nil {
			return err
		}
		routers = append(routers, l.endpoints)
	}
	if len(routers) > 0 {
		l.router = routing.Merge(routers...)
	}
	return nil
}

// FindProviders looks a key up in the DHT and at the endpoints, as far as there
// are any.
func (n *Node) FindProviders(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo] {
	l := n.live.Load()
	if l == nil || l.router == nil {
		return func(func(peer.AddrInfo) bool) {}
	}
	return l.router.FindProviders(ctx, key)
}

// Providers gives who provides a key, for others who ask this node: itself,
// where it shares and announces that, and what the DHT of its network says. What
// it knows besides, of peers that announce nothing, stays with it.
func (n *Node) Providers(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		l := n.live.Load()
		if l == nil || l.dht == nil {
			return
		}
		if quiet, _ := l.pause.state(); !quiet && l.shows != nil && l.shows.has(key) && !yield(peer.AddrInfo{ID: l.host.ID(), Addrs: l.host.Addrs()}) {
			return
		}
		for info := range l.dht.FindProviders(ctx, key) {
			if !yield(info) {
				return
			}
		}
	}
}

// shown knows the keys of what a shelf shows.
type shown struct {
	shelf Shelf

	mu sync.RWMutex
	// metadata holds the digests of the metadata keys; of content the shelf itself
	// can tell.
	metadata map[[sha256.Size]byte]struct{}
}

func newShown(shelf Shelf) *shown {
	return &shown{shelf: shelf, metadata: make(map[[sha256.Size]byte]struct{})}
}

// run follows the shelf until ctx ends.
func (s *shown) run(ctx context.Context) error {
	return s.shelf.Follow(ctx, func(c share.Change) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, k := range c.Removed {
			digest, _ := routing.Digest(routing.MetadataKey(k.HashPart))
			delete(s.metadata, digest)
		}
		for _, k := range c.Added {
			digest, _ := routing.Digest(routing.MetadataKey(k.HashPart))
			s.metadata[digest] = struct{}{}
		}
		return nil
	})
}

// has reports whether key is that of a NAR or a narinfo which is shown.
func (s *shown) has(key cid.Cid) bool {
	digest, ok := routing.Digest(key)
	if !ok {
		return false
	}
	if _, _, held := s.shelf.Held(digest); held {
		return true
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok = s.metadata[digest]
	return ok
}
