package delegated

import (
	"context"
	"crypto/sha256"
	"iter"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

const (
	// maxSearches bounds the lookups at once, and searchTimeout each of them.
	maxSearches   = 32
	searchTimeout = 8 * time.Second
	// maxRemembered bounds the results that are remembered: those of an office
	// that upgrades. Each takes up to 10 KB, most far less.
	maxRemembered = 4_096
	// positiveTTL and negativeTTL are how long.
	positiveTTL = time.Minute
	negativeTTL = 15 * time.Second
)

// lookups looks keys up, each once for all who ask for it at about the same
// time: a whole office upgrades within minutes.
type lookups struct {
	source source
	slots  chan struct{}

	mu     sync.Mutex
	recent *lru.LRU[[sha256.Size]byte, *lookup]
}

// lookup is one of them. The mu of lookups guards it.
type lookup struct {
	found []peer.AddrInfo
	// changed is closed, and replaced, when anything else here changes.
	changed chan struct{}
	ended   bool
	// expires is when one that has ended no longer counts.
	expires time.Time
	// waiting counts those who wait for its end. It is cancelled when none does.
	waiting int
	cancel  context.CancelFunc
}

func newLookups(s source) *lookups {
	recent, err := lru.NewLRU[[sha256.Size]byte, *lookup](maxRemembered, nil)
	if err != nil {
		panic("delegated: " + err.Error()) // only for a size that is not positive
	}
	return &lookups{source: s, slots: make(chan struct{}, maxSearches), recent: recent}
}

// providers gives who provides the key with a digest, as they are found, until
// ctx ends.
func (l *lookups) providers(ctx context.Context, sum [sha256.Size]byte) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		found := l.join(ctx, sum)
		defer l.leave(sum, found)
		for given := 0; ; {
			l.mu.Lock()
			more, changed, ended := found.found[given:], found.changed, found.ended
			l.mu.Unlock()
			for _, info := range more {
				if !yield(info) {
					return
				}
			}
			given += len(more)
			if ended {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// join returns the lookup of a key, a new one if need be.
func (l *lookups) join(ctx context.Context, sum [sha256.Size]byte) *lookup {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found, ok := l.recent.Get(sum); ok && (!found.ended || time.Now().Before(found.expires)) {
		found.waiting++
		return found
	}
	found := &lookup{changed: make(chan struct{}), waiting: 1}
	ctx, found.cancel = context.WithTimeout(context.WithoutCancel(ctx), searchTimeout)
	l.recent.Add(sum, found)
	go l.search(ctx, sum, found)
	return found
}

// leave ends a lookup that nobody waits for any more.
func (l *lookups) leave(sum [sha256.Size]byte, found *lookup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found.waiting--; found.waiting > 0 || found.ended {
		return
	}
	found.cancel()
	if current, ok := l.recent.Peek(sum); ok && current == found {
		l.recent.Remove(sum)
	}
}

// search looks a key up.
func (l *lookups) search(ctx context.Context, sum [sha256.Size]byte, found *lookup) {
	defer found.cancel()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		ttl := negativeTTL
		if len(found.found) > 0 {
			ttl = positiveTTL
		}
		found.ended, found.expires = true, time.Now().Add(ttl)
		close(found.changed)
	}()
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		return
	}
	// Of whichever kind the key is: both make the same CID of their digest.
	for info := range l.source.Providers(ctx, routing.ContentKey(sum)) {
		l.mu.Lock()
		found.found = append(found.found, info)
		close(found.changed)
		found.changed = make(chan struct{})
		enough := len(found.found) == routing.MaxProviders
		l.mu.Unlock()
		if enough {
			return
		}
	}
}
