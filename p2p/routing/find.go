package routing

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxProviders is the largest number of providers that one lookup returns. The
// DHT keeps a record at 20 peers, each with any number of providers.
const MaxProviders = 20

// A provider record carries addresses for 24 of its 48 hours; after that they
// are looked up, for at most addressTimeout each and maxAddressLookups at once.
const (
	addressTimeout    = 5 * time.Second
	maxAddressLookups = 4
)

// A node that has just started finds nobody before it is connected. Until
// joinPatience has passed lookups wait for the first peer, or Nix would be told
// after every restart that nobody has what it asks for. joinInterval is how
// often they look.
const (
	joinPatience = 3 * time.Second
	joinInterval = 50 * time.Millisecond
)

// FindProviders looks up who provides the key: at most MaxProviders peers,
// never the node itself, as they are found, until ctx ends. Those whose
// addresses could not be found have none.
func (d *DHT) FindProviders(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		ctx, cancel := context.WithCancel(ctx)
		found := make(chan peer.AddrInfo)
		go d.search(ctx, key, found)
		defer func() {
			cancel()
			for range found { // Until search has ended.
				continue
			}
		}()
		seen := make(map[peer.ID]struct{}, MaxProviders)
		for info := range found {
			if _, ok := seen[info.ID]; ok {
				continue
			}
			seen[info.ID] = struct{}{}
			d.sightings.note(key, len(seen))
			if !yield(info) || len(seen) == MaxProviders {
				return
			}
		}
	}
}

// search asks all tables and closes found in the end.
func (d *DHT) search(ctx context.Context, key cid.Cid, found chan<- peer.AddrInfo) {
	d.awaitPeer(ctx)
	var lookups sync.WaitGroup
	slots := make(chan struct{}, maxAddressLookups)
	for _, t := range d.tables {
		lookups.Go(func() {
			// Its channel must be read to the end, or its goroutines stay.
			for info := range t.FindProvidersAsync(ctx, key, MaxProviders) {
				if info.ID == t.PeerID() {
					continue
				}
				if len(info.Addrs) == 0 {
					info.Addrs = t.Host().Peerstore().Addrs(info.ID)
				}
				if len(info.Addrs) > 0 {
					send(ctx, found, info)
					continue
				}
				lookups.Go(func() { t.findAddresses(ctx, slots, info.ID, found) })
			}
		})
	}
	lookups.Wait()
	close(found)
}

// awaitPeer waits for the first peer of a DHT that has just been joined.
func (d *DHT) awaitPeer(ctx context.Context) {
	ticker := time.NewTicker(joinInterval)
	defer ticker.Stop()
	for d.Size() == 0 && time.Since(d.joined) < joinPatience {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// findAddresses sends the peer with the addresses that can be found of it.
func (t table) findAddresses(ctx context.Context, slots chan struct{}, p peer.ID, found chan<- peer.AddrInfo) {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return
	}
	lookup, cancel := context.WithTimeout(ctx, addressTimeout)
	defer cancel()
	info, err := t.FindPeer(lookup, p)
	if err != nil {
		info = peer.AddrInfo{ID: p}
	}
	send(ctx, found, info)
}

func send(ctx context.Context, to chan<- peer.AddrInfo, info peer.AddrInfo) {
	select {
	case to <- info:
	case <-ctx.Done():
	}
}
