// Package banned keeps, over a restart, the peers with which the owner of a node
// will have nothing to do. How a peer behaves is no business of this package: see
// swarm.Standing.
package banned

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxBans bounds the list, which is held in memory and written as a whole.
const maxBans = 10_000

// ErrFull says that the list is as long as it may be.
var ErrFull = fmt.Errorf("more than %d peers are banned already", maxBans)

// Ban is one peer that is banned.
type Ban struct {
	Peer peer.ID `json:"peer"`
	// Until is when the ban ends; zero: never.
	Until time.Time `json:"until,omitzero"`
}

func (b Ban) over(now time.Time) bool { return !b.Until.IsZero() && now.After(b.Until) }

// List is who is banned. Its methods are safe for concurrent use.
type List struct {
	store ds.Datastore
	mu    sync.RWMutex
	bans  map[peer.ID]Ban
}

// key is the only one of the store.
var key = ds.NewKey("banned")

// Open returns the list that is kept in store, which is for it alone. With an
// error that says why it could not be read the list is empty, and of use.
func Open(ctx context.Context, store ds.Datastore) (*List, error) {
	l := &List{store: store, bans: make(map[peer.ID]Ban)}
	text, err := store.Get(ctx, key)
	if errors.Is(err, ds.ErrNotFound) {
		return l, nil
	}
	var bans []Ban
	if err == nil {
		err = json.Unmarshal(text, &bans)
	}
	if err != nil {
		return l, fmt.Errorf("banned peers: %w", err)
	}
	for _, b := range bans {
		l.bans[b.Peer] = b
	}
	return l, nil
}

// Banned reports whether a peer is.
func (l *List) Banned(p peer.ID) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	b, ok := l.bans[p]
	return ok && !b.over(time.Now())
}

// All returns the bans that are not over, in the order of the peers' IDs.
func (l *List) All() []Ban {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := time.Now()
	bans := []Ban{}
	for _, b := range l.bans {
		if !b.over(now) {
			bans = append(bans, b)
		}
	}
	slices.SortFunc(bans, func(a, b Ban) int { return cmp.Compare(a.Peer, b.Peer) })
	return bans
}

// Add bans a peer, or changes until when it is banned.
func (l *List) Add(ctx context.Context, b Ban) error {
	return l.change(ctx, func(bans map[peer.ID]Ban) error {
		if _, again := bans[b.Peer]; !again && len(bans) >= maxBans {
			return ErrFull
		}
		bans[b.Peer] = b
		return nil
	})
}

// Remove ends a ban, and reports whether there was one.
func (l *List) Remove(ctx context.Context, p peer.ID) (was bool, err error) {
	was = l.Banned(p)
	return was, l.change(ctx, func(bans map[peer.ID]Ban) error {
		delete(bans, p)
		return nil
	})
}

// change alters a copy of the list that counts once it is written.
func (l *List) change(ctx context.Context, f func(map[peer.ID]Ban) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	bans := maps.Clone(l.bans)
	now := time.Now()
	maps.DeleteFunc(bans, func(_ peer.ID, b Ban) bool { return b.over(now) })
	if err := f(bans); err != nil {
		return err
	}
	text, err := json.Marshal(slices.Collect(maps.Values(bans)))
	if err == nil {
		err = l.store.Put(ctx, key, text)
	}
	if err == nil {
		err = l.store.Sync(ctx, key)
	}
	if err != nil {
		return fmt.Errorf("banned peers: %w", err)
	}
	l.bans = bans
	return nil
}
