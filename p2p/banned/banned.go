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

	"github.com/nar-p2p/nar-p2p/internal/moment"
)

// maxBans bounds the list, which is held in memory and written as a whole.
const maxBans = 10_000

// ErrFull says that the list is as long as it may be.
var ErrFull = fmt.Errorf("more than %d peers are banned already", maxBans)

// Ban is one peer that is banned.
type Ban struct {
	Peer peer.ID
	// Until is when the ban ends, by the clock as it is set now; zero: never.
	Until time.Time
}

// kept is a ban on the disk. Where it has no end, that is zero.
type kept struct {
	Peer peer.ID `json:"peer"`
	moment.Kept
}

// List is who is banned. Its methods are safe for concurrent use.
type List struct {
	store ds.Datastore
	mu    sync.RWMutex
	bans  map[peer.ID]moment.Deadline
}

// key is the only one of the store.
var key = ds.NewKey("banned")

// Open returns the list that is kept in store, which is for it alone. With an
// error that says why it could not be read the list is empty, and of use.
func Open(ctx context.Context, store ds.Datastore) (*List, error) {
	l := &List{store: store, bans: make(map[peer.ID]moment.Deadline)}
	text, err := store.Get(ctx, key)
	if errors.Is(err, ds.ErrNotFound) {
		return l, nil
	}
	var bans []kept
	if err == nil {
		err = json.Unmarshal(text, &bans)
	}
	if err != nil {
		return l, fmt.Errorf("banned peers: %w", err)
	}
	for _, b := range bans {
		l.bans[b.Peer] = b.Recall()
	}
	return l, nil
}

// Banned reports whether a peer is.
func (l *List) Banned(p peer.ID) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	end, ok := l.bans[p]
	return ok && !end.Over()
}

// All returns the bans that are not over, in the order of the peers' IDs.
func (l *List) All() []Ban {
	l.mu.RLock()
	defer l.mu.RUnlock()
	bans := []Ban{}
	for p, end := range l.bans {
		if !end.Over() {
			bans = append(bans, Ban{p, end.Time().Round(time.Second)})
		}
	}
	slices.SortFunc(bans, func(a, b Ban) int { return cmp.Compare(a.Peer, b.Peer) })
	return bans
}

// Add bans a peer, or changes until when it is banned.
func (l *List) Add(ctx context.Context, b Ban) error {
	return l.change(ctx, func(bans map[peer.ID]moment.Deadline) error {
		if _, again := bans[b.Peer]; !again && len(bans) >= maxBans {
			return ErrFull
		}
		bans[b.Peer] = moment.Kept{Until: b.Until}.Recall()
		return nil
	})
}

// Remove ends a ban, and reports whether there was one.
func (l *List) Remove(ctx context.Context, p peer.ID) (was bool, err error) {
	was = l.Banned(p)
	return was, l.change(ctx, func(bans map[peer.ID]moment.Deadline) error {
		delete(bans, p)
		return nil
	})
}

// change alters a copy of the list that counts once it is written.
func (l *List) change(ctx context.Context, f func(map[peer.ID]moment.Deadline) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	bans := maps.Clone(l.bans)
	maps.DeleteFunc(bans, func(_ peer.ID, end moment.Deadline) bool { return end.Over() })
	if err := f(bans); err != nil {
		return err
	}
	list := make([]kept, 0, len(bans))
	for p, end := range bans {
		list = append(list, kept{p, end.Keep()})
	}
	text, err := json.Marshal(list)
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
