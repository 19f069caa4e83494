// Package known remembers, over a restart, the peers through which a network
// was joined, so that the next start depends on nobody's bootstrap peers.
package known

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// maxPeers bounds the peers that are remembered. Some are off when they are
	// needed, and one that is on will do.
	maxPeers = 64
	// maxAddrs bounds the addresses of each, and maxAddr is the longest in bytes:
	// peers say themselves what their addresses are.
	maxAddrs = 8
	maxAddr  = 256
	// memory is how long a peer is remembered that was not met again. The address
	// of a machine at home seldom lasts longer.
	memory = 30 * 24 * time.Hour
)

// Book is a list of peers in a datastore. It is for one caller at a time.
type Book struct {
	store ds.Datastore
}

// New returns the book that is kept in store, which is for it alone.
func New(store ds.Datastore) *Book { return &Book{store} }

// key is the only one of the store.
var key = ds.NewKey("peers")

// entry is a peer as it is kept, in JSON.
type entry struct {
	Peer peer.AddrInfo `json:"peer"`
	// Met is when the peer was last of use.
	Met time.Time `json:"met"`
}

// Peers returns the peers that were met within the last 30 days: first those of
// last time, in the order in which Met was told of them, and then older ones.
func (b *Book) Peers(ctx context.Context) ([]peer.AddrInfo, error) {
	entries, err := b.entries(ctx)
	if err != nil {
		return nil, err
	}
	infos := make([]peer.AddrInfo, len(entries))
	for i, e := range entries {
		infos[i] = e.Peer
	}
	return infos, nil
}

// Met takes note of peers that are of use now, the best first, with addresses at
// which they can be dialled. Of those remembered from before the least recent
// make room for them.
func (b *Book) Met(ctx context.Context, peers []peer.AddrInfo) error {
	if len(peers) == 0 {
		return nil
	}
	// What cannot be read is overwritten.
	old, _ := b.entries(ctx)
	entries := make([]entry, 0, maxPeers)
	now := time.Now().UTC()
	for _, info := range peers {
		if info.Addrs = usable(info.Addrs); len(info.Addrs) > 0 && len(entries) < maxPeers {
			entries = append(entries, entry{info, now})
		}
	}
	for _, e := range old {
		again := slices.ContainsFunc(entries, func(o entry) bool { return o.Peer.ID == e.Peer.ID })
		if !again && len(entries) < maxPeers {
			entries = append(entries, e)
		}
	}
	text, err := json.Marshal(entries)
	if err == nil {
		err = b.store.Put(ctx, key, text)
	}
	if err == nil {
		err = b.store.Sync(ctx, key)
	}
	if err != nil {
		return fmt.Errorf("known peers: %w", err)
	}
	return nil
}

func usable(addrs []ma.Multiaddr) []ma.Multiaddr {
	addrs = ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool { return len(a.Bytes()) <= maxAddr })
	return addrs[:min(len(addrs), maxAddrs)]
}

// entries reads what counts still.
func (b *Book) entries(ctx context.Context) ([]entry, error) {
	text, err := b.store.Get(ctx, key)
	switch {
	case errors.Is(err, ds.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("known peers: %w", err)
	}
	var entries []entry
	if err := json.Unmarshal(text, &entries); err != nil {
		return nil, fmt.Errorf("known peers: %w", err)
	}
	entries = slices.DeleteFunc(entries, func(e entry) bool { return time.Since(e.Met) > memory || len(e.Peer.Addrs) == 0 })
	return entries[:min(len(entries), maxPeers)], nil
}
