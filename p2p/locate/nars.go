package locate

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// enough is how many holders are not worth a search for more.
const enough = 4

// Expect starts to look for a NAR in the background, unless too many are
// expected already. With strangers false only allow-listed peers learn of it,
// and the DHT does not. It is looked for until it is dismissed, at most for two
// minutes.
func (f *Finder) Expect(h nix.NARHash, strangers bool) { f.expect(h, strangers, false) }

// Glance is like Expect, but only those are asked who are known already, or are
// found for something else: the DHT is not searched.
func (f *Finder) Glance(h nix.NARHash, strangers bool) { f.expect(h, strangers, true) }

func (f *Finder) expect(h nix.NARHash, strangers, glance bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	e := f.entry(narKey(h, strangers))
	_, wanted := f.wanted[e]
	if !wanted && len(f.wanted) >= maxExpected {
		return
	}
	f.wanted[e] = struct{}{}
	e.until = now.Add(expectTime)
	e.glance = glance && (e.glance || !wanted)
	if e.step == idle {
		f.begin(e, now)
	}
}

// Dismiss says that a NAR is not expected any more.
func (f *Finder) Dismiss(h nix.NARHash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, strangers := range []bool{true, false} {
		if e, ok := f.entries.Peek(narKey(h, strangers)); ok {
			e.until = time.Time{}
			if _, wanted := f.wanted[e]; wanted && e.waiters == 0 {
				f.abandon(e)
			}
		}
	}
}

// Known reports whether a holder of the NAR is known that may still be there.
func (f *Finder) Known(h nix.NARHash) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, strangers := range []bool{true, false} {
		if e, ok := f.entries.Peek(narKey(h, strangers)); ok && !f.stale(e) && f.alive(e) > 0 {
			return true
		}
	}
	return false
}

// Holders returns the peers that are known to hold the NAR and may still be
// there, the best first. Nobody is asked.
func (f *Finder) Holders(h nix.NARHash) (peers []peer.ID) {
	for _, known := range f.remembered(h) {
		if !slices.Contains(peers, known.peer) && f.cfg.Usable(known.peer) && !f.cfg.Ledger.Dead(known.peer) {
			peers = append(peers, known.peer)
		}
	}
	return peers
}

// remembered returns the holders that are known, the best first.
func (f *Finder) remembered(h nix.NARHash) (holders []holder) {
	f.mu.Lock()
	for _, strangers := range []bool{true, false} {
		if e, ok := f.entries.Peek(narKey(h, strangers)); ok && !f.stale(e) {
			holders = append(holders, e.holders...)
		}
	}
	f.mu.Unlock()
	f.sort(holders)
	return holders
}

// Forget takes note that a peer does not hold the NAR after all.
func (f *Finder) Forget(h nix.NARHash, p peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, strangers := range []bool{true, false} {
		if e, ok := f.entries.Peek(narKey(h, strangers)); ok {
			f.refuse(e, p)
		}
	}
}

// Providers gives the holders of a NAR as they are found, of those known the
// best first, and ends when no more are looked for or ctx ends. Whoever could
// not be reached lately comes last.
func (f *Finder) Providers(ctx context.Context, h nix.NARHash, strangers bool) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		_, span := tracing.Start(ctx, "providers")
		defer span.End(nil)
		e, err := f.want(ctx, narKey(h, strangers))
		if err != nil {
			f.log.Debug("cannot look for holders", zap.Stringer("narHash", h), zap.Error(err))
			return
		}
		defer f.leave(e)
		delay := time.NewTimer(f.patience.search())
		defer delay.Stop()
		var given []peer.ID
		for {
			holders, changed, ended := f.look(e)
			if next, ok := f.best(holders, given, ended); ok {
				given = append(given, next.ID)
				if span.On() {
					span.Event("found", "nar_p2p.peer", next.ID.String())
				}
				if !yield(next) {
					return
				}
				continue
			}
			if ended {
				return
			}
			select {
			case <-changed:
			case <-delay.C:
				f.searchMore(e)
			case <-f.stopped:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// best returns the best of the holders that were not given yet. One that is
// dead is given only at the end.
func (f *Finder) best(holders []holder, given []peer.ID, ended bool) (best peer.AddrInfo, ok bool) {
	f.sort(holders)
	for _, h := range holders {
		if slices.Contains(given, h.peer) || !f.cfg.Usable(h.peer) || !ended && f.cfg.Ledger.Dead(h.peer) {
			continue
		}
		// Who has answered was connected, and may be so still although it has no
		// address: it came through a NAT.
		addrs := f.cfg.Book.Addrs(h.peer)
		if h.own || len(addrs) > 0 {
			return peer.AddrInfo{ID: h.peer, Addrs: addrs}, true
		}
	}
	return peer.AddrInfo{}, false
}

// look returns what is known of an entry, a channel that is closed when that
// changes, and whether it will not change any more.
func (f *Finder) look(e *entry) (holders []holder, changed <-chan struct{}, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ended = e.ended()
	if now := time.Now(); e.step == asked && f.searchable(e, now) && f.alive(e) < enough {
		// The DHT may know more, which can wait if there is somebody to ask.
		ended = false
		if f.alive(e) == 0 {
			e.deep = true
			f.enqueue(e, now)
		}
	}
	return slices.Clone(e.holders), e.changed, ended
}

// searchMore searches the DHT for more holders than the sources.
func (f *Finder) searchMore(e *entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.deep = true
	if e.step == asked {
		f.enqueue(e, time.Now())
	}
}
