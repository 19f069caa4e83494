package locate

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// maxSources bounds the sources asked about one thing: an office, where in
	// profile lan nobody else could tell.
	maxSources = 64
	// maxHelpers bounds the peers that are asked because they had something
	// lately, within helperTTL.
	maxHelpers = 8
	helperTTL  = positiveTTL
	// nearTTL is how long the list of neighbours counts: it takes some
	// microseconds to make, and Nix asks for hundreds of paths at once.
	nearTTL = 100 * time.Millisecond
	// answerGrace is how long whoever waits may look at a record before more are
	// looked for: it may be all that was wanted.
	answerGrace = 100 * time.Millisecond
	// refusalTTL is for how long a peer is not asked again for a record that it
	// did not have.
	refusalTTL = 10 * time.Second
)

// helper is a peer that had something that was asked for.
type helper struct {
	peer peer.ID
	at   time.Time
}

// neighbourhood is what Config.Neighbours returned.
type neighbourhood struct {
	peers []peer.ID
	epoch uint64
	at    time.Time
}

// neighbours returns the neighbours of about now; mu is held.
func (f *Finder) neighbours(strangers bool, now time.Time) []peer.ID {
	n, ok := f.near[strangers]
	if !ok || n.epoch != f.epoch || now.Sub(n.at) >= nearTTL {
		n = neighbourhood{f.cfg.Neighbours(strangers), f.epoch, now}
		f.near[strangers] = n
	}
	return n.peers
}

// sources returns the peers to ask first about anything, and those of them
// that have helped lately; mu is held.
func (f *Finder) sources(strangers bool, now time.Time) (sources, helpers []peer.ID) {
	for _, p := range f.neighbours(strangers, now) {
		if !f.cfg.Ledger.Dead(p) {
			sources = append(sources, p)
		}
	}
	for _, h := range f.helpers {
		if now.Sub(h.at) >= helperTTL || f.cfg.Ledger.Dead(h.peer) || !f.cfg.Usable(h.peer) {
			continue
		}
		near := slices.Contains(sources, h.peer)
		if !near && strangers {
			sources = append(sources, h.peer)
		}
		if near || strangers {
			helpers = append(helpers, h.peer)
		}
	}
	return sources[:min(len(sources), maxSources)], helpers
}

// remember makes a peer the first of the helpers; mu is held.
func (f *Finder) remember(p peer.ID, now time.Time) {
	f.helpers = slices.DeleteFunc(f.helpers, func(h helper) bool { return h.peer == p })
	f.helpers = slices.Insert(f.helpers, 0, helper{p, now})
	f.helpers = f.helpers[:min(len(f.helpers), maxHelpers)]
}

// begin asks the sources about an entry; mu is held.
func (f *Finder) begin(e *entry, now time.Time) {
	if e.key.kind == nars || now.Sub(e.began) >= refusalTTL {
		e.refused = nil
	}
	f.metrics.closure.looked(now)
	e.tried = slices.Clone(e.refused)
	e.began, e.epoch = now, f.epoch
	f.open[e] = struct{}{}
	e.step = asking
	sources, helpers := f.sources(e.key.strangers, now)
	e.rest = e.key.kind == records && len(helpers) > 0
	if e.rest {
		f.put(e, now, helpers...)
		e.due = now.Add(f.patience.helpers())
	} else {
		f.put(e, now, sources...)
		e.due = now.Add(f.patience.sources(e.key.kind))
	}
	if len(e.questions) == 0 {
		f.settle(e, now)
	}
}

// settle moves on an entry whose sources have answered or had their time; mu
// is held.
func (f *Finder) settle(e *entry, now time.Time) {
	if now.Before(e.grace) {
		e.due = e.grace
		return
	}
	if e.rest {
		e.rest = false
		sources, _ := f.sources(e.key.strangers, now)
		if f.put(e, now, sources...); len(e.questions) > 0 {
			e.due = now.Add(f.patience.sources(e.key.kind))
			return
		}
	}
	first := f.made.Add(f.cfg.JoinPatience)
	switch {
	case len(e.tried) == 0 && !f.searchable(e, now) && now.Before(first):
		e.due = first
	case e.key.kind == nars && f.alive(e) > 0 && (!e.deep || !f.searchable(e, now)):
		f.advance(e, asked, now)
	case e.glance: // It begins anew when it is wanted.
		e.step = idle
		f.close(e)
	default:
		f.enqueue(e, now)
	}
}

// allowed reports whether a peer may be asked about an entry; mu is held.
func (f *Finder) allowed(e *entry, p peer.ID, now time.Time) bool {
	return e.key.strangers || slices.Contains(f.neighbours(false, now), p)
}

// introduce asks a peer about everything that is wanted and that it was not
// asked about; mu is held.
func (f *Finder) introduce(p peer.ID, now time.Time) {
	for e := range f.wanted {
		if f.allowed(e, p, now) {
			f.put(e, now, p)
		}
	}
}

// Neighbour takes note of a peer that can now be asked directly.
func (f *Finder) Neighbour(p peer.ID) {
	f.cfg.Ledger.Reached(p)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
	for e := range f.wanted {
		// What it did not answer before it was lost can be asked again.
		if !e.answered(p) && !e.asks(p) {
			e.tried = slices.DeleteFunc(e.tried, func(t peer.ID) bool { return t == p })
		}
	}
	f.introduce(p, time.Now())
	f.poke()
}
