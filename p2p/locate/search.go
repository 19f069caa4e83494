package locate

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// maxAddresses bounds the addresses that are taken from one provider record.
const maxAddresses = 16

// enqueue has the DHT searched for an entry, if that is possible; mu is held.
func (f *Finder) enqueue(e *entry) {
	if !f.searchable(e) {
		f.advance(e, searched)
		return
	}
	select {
	case f.searches <- e:
		f.advance(e, searching)
	default:
		f.advance(e, searched)
	}
}

// searchMore searches the DHT for more holders than the sources.
func (f *Finder) searchMore(e *entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.deep = true
	if e.step == asked {
		f.enqueue(e)
	}
}

// search looks an entry up in the DHT.
func (f *Finder) search(ctx context.Context, e *entry) {
	f.mu.Lock()
	if len(e.holders) > 0 && !e.deep {
		// A peer found for another NAR holds this one too.
		f.advance(e, asked)
		f.mu.Unlock()
		return
	}
	f.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	start, found := time.Now(), 0
	for info := range f.cfg.DHT.FindProviders(ctx, routing.ContentKey(e.key.hash)) {
		if len(info.Addrs) > 0 {
			found++
			f.found(e, info)
		}
	}
	f.log.Debug("searched", zap.Stringer("narHash", e.key.hash), zap.Int("providers", found), zap.Duration("took", time.Since(start)))

	f.mu.Lock()
	defer f.mu.Unlock()
	f.advance(e, searched)
	if len(e.holders) == 0 && f.cfg.DHT.Size() == 0 {
		e.expires = time.Now().Add(offlineTTL)
	}
}

// found takes over a provider from the DHT.
func (f *Finder) found(e *entry, info peer.AddrInfo) {
	f.cfg.Book.AddAddrs(info.ID, info.Addrs[:min(len(info.Addrs), maxAddresses)], positiveTTL)
	f.mu.Lock()
	f.hold(e, info.ID, false)
	f.mu.Unlock()
	select {
	case f.introductions <- info.ID:
	default:
	}
}
