package locate

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

const (
	// askTimeout bounds one request.
	askTimeout = 4 * time.Second
	// maxLines bounds the peers with requests at one time.
	maxLines = 256
	// maxGather bounds how long a first request waits for company: an eighth of
	// a round trip, as Nix asks for 25 paths at a time. Without it every level of
	// a closure would take two round trips.
	maxGather = 5 * time.Millisecond
	// minPause is how long a peer is left alone that had no room for anything.
	minPause = 100 * time.Millisecond
)

// line is what waits to be put to one peer, and what is under way.
type line struct {
	waiting [kinds][]*entry
	// ready is when the first of those waiting may go.
	ready [kinds]time.Time
	// flying is the request under way.
	flying [kinds]*request
	// pause is until when the peer wants to be left alone.
	pause time.Time
}

// request is one request to one peer.
type request struct {
	peer peer.ID
	kind kind
	keys []key
	// batch holds the entries of the keys, nil for what is needed no longer. The
	// Finder's mu guards it.
	batch  []*entry
	cancel context.CancelFunc
}

// asks reports whether a peer is still to answer about an entry.
func (e *entry) asks(p peer.ID) bool {
	return slices.ContainsFunc(e.questions, func(q question) bool { return q.peer == p })
}

// put puts an entry to peers, but for those that it was put to before; mu is
// held.
func (f *Finder) put(e *entry, now time.Time, peers ...peer.ID) {
	k := e.key.kind
	for _, p := range peers {
		if slices.Contains(e.tried, p) {
			continue
		}
		l := f.lines[p]
		switch {
		case l == nil && len(f.lines) == maxLines:
			continue
		case l == nil:
			l = &line{}
			f.lines[p] = l
		case !e.deadline.IsZero() && l.pause.After(e.deadline):
			continue
		}
		if len(l.waiting[k]) == 0 {
			l.ready[k] = now.Add(min(f.cfg.Ledger.RTT(p)/8, maxGather))
		}
		l.waiting[k] = append(l.waiting[k], e)
		e.tried = append(e.tried, p)
		e.questions = append(e.questions, question{peer: p})
		f.open[e] = struct{}{}
		if e.step == searching {
			e.hold = now.Add(f.patience.walk())
		}
	}
	f.poke()
}

// remove takes out an entry that is needed no longer; mu is held. A request of
// which nothing is needed any more ends.
func (l *line) remove(e *entry) {
	k := e.key.kind
	l.waiting[k] = slices.DeleteFunc(l.waiting[k], func(w *entry) bool { return w == e })
	r := l.flying[k]
	if r == nil {
		return
	}
	if at := slices.Index(r.batch, e); at >= 0 {
		r.batch[at] = nil
		if !slices.ContainsFunc(r.batch, func(o *entry) bool { return o != nil }) {
			r.cancel()
		}
	}
}

// nextRequests begins the requests that can be made now; mu is held.
func (f *Finder) nextRequests(ctx context.Context, now time.Time, until func(time.Time)) (jobs []func()) {
	for p, l := range f.lines {
		busy := false
		for k := range kind(kinds) {
			ready := l.ready[k]
			if l.pause.After(ready) {
				ready = l.pause
			}
			switch {
			case l.flying[k] != nil:
				busy = true
			case len(l.waiting[k]) == 0:
			case now.Before(ready):
				busy = true
				until(ready)
			default:
				busy = true
				r := l.next(p, k)
				var asking context.Context
				asking, r.cancel = context.WithTimeout(ctx, askTimeout)
				jobs = append(jobs, func() { f.request(asking, l, r) })
			}
		}
		if !busy && !now.Before(l.pause) {
			delete(f.lines, p)
		}
	}
	return jobs
}

// next makes a request of those that wait.
func (l *line) next(p peer.ID, k kind) *request {
	n := min(len(l.waiting[k]), k.batch())
	r := &request{peer: p, kind: k, batch: slices.Clone(l.waiting[k][:n])}
	for _, e := range r.batch {
		r.keys = append(r.keys, e.key)
	}
	l.waiting[k] = slices.Delete(l.waiting[k], 0, n)
	l.flying[k] = r
	return r
}

// request makes one request.
func (f *Finder) request(ctx context.Context, l *line, r *request) {
	defer r.cancel()
	defer f.poke()
	answers, err := f.ask(ctx, r)
	cancelled := errors.Is(context.Cause(ctx), context.Canceled)
	busy := (*exchange.BusyError)(nil)
	result := "answered"
	switch {
	case err == nil:
	case errors.As(err, &busy):
		result = "busy"
	case cancelled:
		result = "cancelled"
	default:
		result = "failed"
	}
	f.metrics.requests.WithLabelValues(r.kind.String(), result).Inc()
	if err != nil {
		f.log.Debug("request", zap.Stringer("kind", r.kind), zap.Stringer("peer", r.peer), zap.Error(err))
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	l.flying[r.kind] = nil
	for i, a := range answers {
		if e := r.batch[i]; e != nil {
			f.answer(e, r.peer, a, now)
		}
	}
	left := slices.DeleteFunc(r.batch[len(answers):], func(e *entry) bool { return e == nil })
	switch {
	case busy != nil:
		if len(answers) == 0 {
			busy.RetryAfter = max(busy.RetryAfter, minPause)
		}
		l.waiting[r.kind] = slices.Concat(left, l.waiting[r.kind])
		f.pause(l, r.peer, busy.RetryAfter, now)
		return
	case err != nil && !cancelled:
		// Whatever else waits for this peer need not.
		left = slices.Concat(left, l.waiting[nars], l.waiting[records])
		l.waiting = [kinds][]*entry{}
	}
	for _, e := range left {
		f.noAnswer(e, r.peer, now)
	}
}

// ask asks the peer. There may be fewer answers than keys, and then there is an
// error.
func (f *Finder) ask(ctx context.Context, r *request) ([]holder, error) {
	answers := make([]holder, 0, len(r.keys))
	if r.kind == nars {
		hashes := make([]nix.NARHash, len(r.keys))
		for i, k := range r.keys {
			hashes[i] = k.nar
		}
		holdings, err := f.cfg.Client.Have(ctx, r.peer, hashes)
		for _, h := range holdings {
			answers = append(answers, holder{peer: r.peer, own: h.Held})
		}
		return answers, err
	}
	parts := make([]nix.HashPart, len(r.keys))
	for i, k := range r.keys {
		parts[i] = k.part
	}
	infos, err := f.cfg.Client.Narinfos(ctx, r.peer, parts)
	for _, info := range infos {
		answers = append(answers, holder{peer: r.peer, own: info != nil, record: info})
	}
	return answers, err
}

// answer takes note of a peer's answer about an entry; mu is held.
func (f *Finder) answer(e *entry, p peer.ID, a holder, now time.Time) {
	if !a.own {
		f.refuse(e, p)
		f.noAnswer(e, p, now)
		return
	}
	f.remember(p, now)
	if _, running := f.walks.running[e]; e.step == searching && !running {
		f.walks.width = minWalks // A walk is spared.
	}
	if e.key.kind == nars || e.needed(now) {
		f.hold(e, a)
	}
	if e.key.kind == records {
		e.grace = now.Add(answerGrace)
	}
	f.noAnswer(e, p, now)
}

// noAnswer takes note that a peer will not answer about an entry any more; mu
// is held.
func (f *Finder) noAnswer(e *entry, p peer.ID, now time.Time) {
	e.questions = slices.DeleteFunc(e.questions, func(q question) bool { return q.peer == p })
	f.askNamed(e, now)
	if e.step == asking && len(e.questions) == 0 {
		f.settle(e, now)
	}
	f.close(e)
	e.notify()
}

// pause leaves a peer alone that has no room. What cannot wait as long does
// without its answer; mu is held.
func (f *Finder) pause(l *line, p peer.ID, retry time.Duration, now time.Time) {
	if again := now.Add(retry); again.After(l.pause) {
		l.pause = again
	}
	for _, e := range slices.Concat(l.waiting[nars], l.waiting[records]) {
		if !e.deadline.IsZero() && l.pause.After(e.deadline) {
			l.remove(e)
			f.noAnswer(e, p, now)
		}
	}
}
