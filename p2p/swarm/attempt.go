package swarm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

// errBetter ends an attempt because another manifest has more weight.
var errBetter = errors.New("swarm: another manifest has more weight")

// errNoManifest ends an attempt in which nobody could be found to send the
// manifest.
var errNoManifest = errors.New("swarm: nobody sends the manifest")

const (
	// sweepInterval is how often is looked for what has stalled, and for what has
	// become late.
	sweepInterval = 50 * time.Millisecond
	// providerShare is how many bytes are worth one more provider.
	providerShare = 2 << 20
	// A provider on the local network is alone for lanLead, and longer if it is
	// done within lanTime: others are not burdened for nothing.
	lanLead = 250 * time.Millisecond
	lanTime = 500 * time.Millisecond
	// hedgeTime is after how long without a chunk one more provider is asked, and
	// then another.
	hedgeTime = 500 * time.Millisecond
)

// preference says whose manifest an attempt goes by. Zero is whoever sends one
// first.
type preference struct {
	root  chunk.Root
	known bool
	// sender is whose word is better than any root's, or "".
	sender peer.ID
}

// attempt is one try at a NAR, under one manifest.
type attempt struct {
	*Transfer

	window *window
	plan   *plan
	prefer preference
	begun  time.Time
	// results is told of providers that are done with.
	results chan result
	// claimants were asked for the manifest, and asking counts those that have
	// not answered; for run alone.
	claimants map[peer.ID]struct{}
	asking    int
	// live are the providers at work; for run alone.
	live map[peer.ID]peer.AddrInfo
	// override is told of a trusted provider with another manifest.
	override chan peer.ID
}

// result is how it ended with a provider.
type result struct {
	provider peer.AddrInfo
	// manifest says that it was asked for the manifest only.
	manifest bool
	err      error
}

func (t *Transfer) newAttempt(prefer preference) *attempt {
	w := newWindow(t.swarm.memory, t.want, newLocal(t.session))
	return &attempt{
		Transfer: t, window: w, plan: newPlan(t.want, w), prefer: prefer, begun: time.Now(),
		results: make(chan result), claimants: make(map[peer.ID]struct{}), live: make(map[peer.ID]peer.AddrInfo),
		override: make(chan peer.ID, 1),
	}
}

// run has providers fill the window, several at once, until all is there. Where
// another manifest turns out to be better the error is errBetter.
func (a *attempt) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer func() {
		cancel()
		go func() { workers.Wait(); close(a.results) }()
		for range a.results { // so that nobody is left
			continue
		}
	}()
	fresh := make(chan peer.AddrInfo)
	workers.Go(func() { a.supply(ctx, fresh) })
	a.window.local.run(ctx, a.window, &workers)
	begin := func(p peer.AddrInfo, manifest bool) {
		workers.Go(func() {
			ask := a.from
			if manifest {
				ask = a.manifestFrom
			}
			err := ask(ctx, p.ID)
			if errors.Is(err, exchange.ErrConnClosed) && ctx.Err() == nil {
				// Holes are punched over TCP and QUIC at once, and then one of two connections
				// is closed, or either by one side: there is another, or one is made.
				err = ask(ctx, p.ID)
			}
			a.results <- result{p, manifest, err}
		})
	}
	var busy queue
	failure, tried := ErrNoProviders, 0
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		offered := fresh
		if !a.wantsMore() {
			offered = nil
		}
		select {
		case p, ok := <-offered:
			if !ok {
				fresh = nil
				break
			}
			tried++
			a.live[p.ID] = p
			begin(p, false)
		case r := <-a.results:
			if r.manifest {
				a.asking--
			} else {
				delete(a.live, r.provider.ID)
			}
			if r.err != nil && ctx.Err() == nil {
				a.swarm.log.Debug("provider failed", zap.Stringer("peer", r.provider.ID), zap.Stringer("narHash", a.want.Hash), zap.Error(r.err))
				failure = fmt.Errorf("swarm: %d providers tried, the last: %w", tried, r.err)
				a.conclude(r, &busy)
			}
		case <-ticker.C:
			a.window.sweep()
			if p, ok := busy.due(time.Now()); ok {
				a.live[p.ID] = p
				begin(p, false)
			}
			if p, ok := a.heir(); ok {
				a.asking++
				begin(p, true)
			}
		case <-a.votes.changed:
		case p := <-a.override:
			if a.yield(a, preference{sender: p}) {
				return errBetter
			}
		case <-a.window.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if root, ok := a.outvoted(); ok && a.yield(a, preference{root: root, known: true}) {
			return errBetter
		}
		switch spent := fresh == nil && len(busy.postponed) == 0; {
		case spent && len(a.live) == 0:
			return failure
		case (spent || len(a.live) == maxProviders) && a.barren():
			return fmt.Errorf("%w: %w", errNoManifest, failure)
		}
	}
}

// supply hands on the providers that could be reached, but for those that have
// failed in this transfer.
func (a *attempt) supply(ctx context.Context, fresh chan<- peer.AddrInfo) {
	defer close(fresh)
	for i := range maxCandidates {
		p, ok := a.candidates.at(ctx, i)
		if !ok {
			return
		}
		if a.isOut(p.ID) {
			continue
		}
		select {
		case fresh <- p:
		case <-ctx.Done():
			return
		}
	}
}

// wantsMore reports whether one more provider is worth its trouble.
func (a *attempt) wantsMore() bool {
	if len(a.live) >= maxProviders {
		return false
	}
	s := a.window.state()
	wanted := 1 + int(s.left/providerShare) + s.stalled
	age := time.Since(a.begun)
	if s.delivering == 0 {
		wanted += int(age / hedgeTime)
	}
	if a.plan.lapse() {
		wanted++
	}
	if len(a.live) >= wanted {
		return false
	}
	if s.stalled > 0 || a.plan.lapse() || !a.near() {
		return true
	}
	return age >= lanLead && (s.rate == 0 || float64(s.left)/s.rate > lanTime.Seconds())
}

// near reports whether one of the providers at work is on the local network.
func (a *attempt) near() bool {
	for p := range a.live {
		if a.swarm.onLAN(p) {
			return true
		}
	}
	return false
}

// heir returns a provider to be asked for the manifest in the place of one that
// has failed, or that takes long.
func (a *attempt) heir() (peer.AddrInfo, bool) {
	if !a.plan.lapse() {
		return peer.AddrInfo{}, false
	}
	for id, p := range a.live {
		if _, asked := a.claimants[id]; !asked && (a.prefer.sender == "" || a.prefer.sender == id) {
			a.claimants[id] = struct{}{}
			return p, true
		}
	}
	return peer.AddrInfo{}, false
}

// barren reports whether nobody is left to be asked for the manifest.
func (a *attempt) barren() bool {
	if a.asking > 0 || !a.plan.lapse() || a.plan.attended() {
		return false
	}
	for id := range a.live {
		if _, asked := a.claimants[id]; !asked || a.swarm.client.Punching(id) {
			return false
		}
	}
	return true
}

// outvoted returns the root that has more weight than that of the manifest in
// use, if there is one.
func (a *attempt) outvoted() (chunk.Root, bool) {
	root, most, ok := a.votes.best(a.doubts)
	if !ok {
		return root, false
	}
	return root, a.plan.outweighed(a.votes, root, most, a.prefer)
}

// conclude draws the conclusions from a provider's failure.
func (a *attempt) conclude(r result, busy *queue) {
	if full := (*exchange.BusyError)(nil); errors.As(r.err, &full) {
		if !r.manifest {
			busy.postpone(r.provider, full.RetryAfter)
		}
		return
	}
	if !errors.Is(r.err, errDisagrees) {
		a.out(r.provider.ID)
	}
	a.judge(r.provider.ID, r.err)
}

// from has one provider fill the window.
func (a *attempt) from(ctx context.Context, p peer.ID) error {
	begun := time.Now()
	ctx, span := tracing.Ask(ctx, "session")
	w := a.newWorker(p)
	err := a.employ(ctx, w)
	a.window.mu.Lock()
	defer a.window.mu.Unlock()
	w.trace(span, err)
	if w.delivered > 0 {
		latest := pace{rtt: w.flow.rtt, firstByte: w.first.Sub(begun), lan: a.swarm.onLAN(p)}
		if latest.rate = w.flow.rate; latest.rate == 0 && w.delivered >= leastMeasured {
			latest.rate = float64(w.delivered) / time.Since(w.first).Seconds()
		}
		a.swarm.standing.delivered(p, latest)
	}
	return err
}

func (a *attempt) newWorker(p peer.ID) *worker {
	w := &worker{id: p, window: a.window, wake: make(chan struct{}, 1)}
	w.flow.usual = a.swarm.standing.Rate(p)
	return w
}

// leastMeasured is how many bytes must have come for their rate to be one of
// the line.
const leastMeasured = 1 << 20

// employ opens a session with a provider, and has it send chunks, and the
// manifest where nobody does yet.
func (a *attempt) employ(ctx context.Context, w *worker) error {
	// All sessions end with the first failure.
	g, work := errgroup.WithContext(ctx)
	opened, err := a.enter(work, w.id)
	if err != nil {
		return err
	}
	s := opened.session
	defer s.Close()
	w.session, w.via = s, a.swarm.via(s)
	w.flow.trip(opened.trip)
	beside := opened.claimed && !opened.known && a.swarm.client.HasRoom(w.id)
	switch {
	case !opened.claimed:
		g.Go(func() error { return w.fill(work, nil) })
	case !beside:
		// One that has the manifest ready sends the one and then the others.
		g.Go(func() error { return w.fill(work, opened.receive) })
	default:
		// One that computes it first can send chunks meanwhile, over a second
		// session, if it has room for that.
		full := make(chan bool, 1)
		g.Go(func() error {
			if err := opened.receive(); err != nil || !<-full {
				return err
			}
			return w.fill(work, nil)
		})
		g.Go(func() error { return a.fillBeside(work, w, full) })
	}
	err = g.Wait()
	if root, known := a.plan.known(); errors.Is(err, exchange.ErrWrongBytes) && !opened.claimed && (!known || !opened.known || root != opened.root) {
		// It may as well be the manifest that is wrong, which is another's.
		if _, trusted := a.plan.source(); !trusted {
			return fmt.Errorf("%w: %v", errDisagrees, err)
		}
	}
	return err
}

// fillBeside fetches chunks over a second session with a provider, and says
// whether it had no room for one.
func (a *attempt) fillBeside(ctx context.Context, w *worker, refused chan<- bool) error {
	s, err := a.open(ctx, w.id)
	if err == nil {
		defer s.Close()
		_, _, err = s.Opened()
	}
	busy := (*exchange.BusyError)(nil)
	full := errors.As(err, &busy)
	if err == nil {
		w.session = s
	}
	refused <- full
	switch {
	case full:
		return nil
	case err != nil:
		return err
	}
	return w.fill(ctx, nil)
}
