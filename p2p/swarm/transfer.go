package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

var (
	errClosed   = errors.New("swarm: transfer is closed")
	errUnusable = errors.New("swarm: peer of bad standing")
)

// Source is a peer that bytes came from.
type Source struct {
	// Peer is its ID as text.
	Peer string
	// Bytes counts the verified ones.
	Bytes int64
}

// Transfer is one NAR on its way. Read gives the bytes from the offset wanted
// on, each verified against the manifest; io.EOF comes only after the manifest
// was confirmed by its sender.
type Transfer struct {
	swarm      *Swarm
	want       Want
	candidates *candidates
	window     *window
	plan       *plan
	votes      *votes

	// cancel ends the goroutines that running counts.
	cancel  context.CancelFunc
	running sync.WaitGroup
	// polled and verdict are for what happens once.
	polled, verdict sync.Once
}

var _ io.ReadCloser = (*Transfer)(nil)

func (s *Swarm) newTransfer(want Want) *Transfer {
	w := newWindow(s.budget, want)
	t := &Transfer{
		swarm:  s,
		want:   want,
		window: w,
		plan:   newPlan(want, w),
		votes:  newVotes(),
	}
	t.candidates = newCandidates(t.dial)
	return t
}

// start begins the search for providers and the fetching.
func (t *Transfer) start(ctx context.Context) {
	ctx, t.cancel = context.WithCancel(ctx)
	t.running.Go(func() {
		t.candidates.gather(ctx, t.swarm.finder.Providers(ctx, t.want.Hash, t.want.Strangers))
	})
	t.running.Go(func() {
		if err := t.fetch(ctx); err != nil {
			t.window.fail(err)
		}
	})
}

// dial connects to a provider that is worth it.
func (t *Transfer) dial(ctx context.Context, p peer.AddrInfo) error {
	if !t.swarm.standing.Usable(p.ID) {
		return errUnusable
	}
	err := t.swarm.client.Connect(ctx, p)
	if err != nil && ctx.Err() == nil {
		t.swarm.log.Debug("provider not reached", zap.Stringer("peer", p.ID), zap.Error(err))
		t.swarm.standing.failed(p.ID)
	}
	return err
}

// Read reads the next verified bytes.
func (t *Transfer) Read(p []byte) (int, error) { return t.window.Read(p) }

// Close ends the transfer.
func (t *Transfer) Close() error {
	t.cancel()
	t.running.Wait()
	t.window.close()
	return nil
}

// Earned reports whether the manifest has earned that bytes are used before the
// whole NAR is verified: a trusted peer sent it, or one that was honest before,
// or it is complete and providers in two address groups have the same. It can
// become true while the transfer runs.
func (t *Transfer) Earned() bool {
	if t.plan.implicit() {
		return true
	}
	if _, trusted := t.plan.source(); trusted {
		return true
	}
	root, complete := t.plan.known()
	return complete && t.votes.enough(root)
}

// Verdict tells whether the NAR as a whole had its hash. It must be called only
// where all of it was checked; the first call counts.
func (t *Transfer) Verdict(ok bool) {
	sender, _ := t.plan.source()
	if t.plan.implicit() || sender == "" {
		return
	}
	t.verdict.Do(func() {
		if ok {
			t.swarm.standing.proved(sender)
			return
		}
		t.swarm.standing.lied(sender)
		t.swarm.log.Warn("peer sent a manifest that the whole NAR proves wrong",
			zap.Stringer("peer", sender), zap.Stringer("narHash", t.want.Hash))
	})
}

// Sources returns the peers that bytes came from so far, the largest first.
func (t *Transfer) Sources() []Source {
	t.window.mu.Lock()
	defer t.window.mu.Unlock()
	sources := make([]Source, 0, len(t.window.sources))
	for p, s := range t.window.sources {
		sources = append(sources, Source{Peer: p.String(), Bytes: s.bytes})
	}
	slices.SortFunc(sources, func(a, b Source) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Peer, b.Peer))
	})
	return sources
}

// fetch lets one provider after the other fill the window until all is there.
func (t *Transfer) fetch(ctx context.Context) error {
	failure := ErrNoProviders
	q := queue{candidates: t.candidates}
	for {
		p, ok := q.next(ctx)
		if !ok {
			break
		}
		err := t.from(ctx, p.ID)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
		t.swarm.log.Debug("provider failed", zap.Stringer("peer", p.ID), zap.Stringer("narHash", t.want.Hash), zap.Error(err))
		if busy := (*exchange.BusyError)(nil); errors.As(err, &busy) {
			q.postpone(p, busy.RetryAfter)
		} else {
			t.judge(p.ID, err)
		}
		if t.window.restart() {
			t.plan.restart()
		}
		failure = fmt.Errorf("swarm: %d providers tried, the last: %w", q.tried, err)
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return failure
}

// from fetches what is missing from one provider, and notes how that goes.
func (t *Transfer) from(ctx context.Context, p peer.ID) error {
	begun := time.Now()
	err := t.attempt(ctx, p)
	if bytes, first := t.window.received(p); bytes > 0 {
		latest := pace{firstByte: first.Sub(begun)}
		if took := time.Since(first); bytes >= leastMeasured {
			latest.rate = float64(bytes) / took.Seconds()
		}
		t.swarm.standing.delivered(p, latest)
	}
	return err
}

// leastMeasured is how many bytes must have come for their rate to be one of
// the line.
const leastMeasured = 1 << 20

// attempt fetches what is missing from one provider.
func (t *Transfer) attempt(ctx context.Context, p peer.ID) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	// All sessions end with the first failure.
	g, work := errgroup.WithContext(inner)
	s, err := t.open(work, p)
	if err != nil {
		return err
	}
	defer s.Close()
	agreed := true
	switch root, complete := t.plan.known(); {
	case t.plan.implicit():
		// The run travels with the opening.
		g.Go(func() error { return t.window.work(work, s) })
	case complete:
		theirs, known, err := s.Opened()
		if err != nil {
			return err
		}
		if known && theirs != root {
			return errDisagrees
		}
		agreed = known
		g.Go(func() error { return t.window.work(work, s) })
	default:
		trusted := t.swarm.trusted(p, s.RemoteAddr())
		if !trusted {
			t.polled.Do(func() { t.running.Go(func() { t.poll(ctx) }) })
		}
		if err := t.planAndWork(work, g, s, trusted); err != nil {
			return err
		}
	}
	err = g.Wait()
	if errors.Is(err, exchange.ErrWrongBytes) && !agreed {
		// It may as well be the manifest that is wrong, which is another's.
		if _, trusted := t.plan.source(); !trusted {
			return fmt.Errorf("%w: %v", errDisagrees, err)
		}
	}
	return err
}

// planAndWork fetches the manifest and chunks. A provider that has the manifest
// ready sends the one and then the others over one session. One that computes
// it first can send chunks meanwhile, over a second session, if it has room for
// that.
func (t *Transfer) planAndWork(ctx context.Context, g *errgroup.Group, s *exchange.Session, trusted bool) error {
	if _, before := t.plan.source(); before && !trusted {
		// Bytes may have been used on the word of a trusted peer.
		return errDisagrees
	}
	askErr := s.AskManifest()
	_, ready, err := s.Opened()
	if err = cmp.Or(err, askErr); err != nil {
		return err
	}
	// alone says that there is no second session.
	alone := make(chan bool, 1)
	g.Go(func() error {
		if err := t.plan.receive(s, trusted); err != nil {
			return err
		}
		if root, complete := t.plan.known(); complete {
			t.votes.add(root, s.RemoteAddr())
		}
		if <-alone {
			return t.window.work(ctx, s)
		}
		return nil
	})
	if ready || !t.swarm.client.HasRoom(s.Peer()) {
		alone <- true
		return nil
	}
	g.Go(func() error { return t.workBeside(ctx, s.Peer(), alone) })
	return nil
}

// workBeside fetches chunks over a second session with a provider, and says
// whether it had no room for one.
func (t *Transfer) workBeside(ctx context.Context, p peer.ID, refused chan<- bool) error {
	data, err := t.open(ctx, p)
	if err == nil {
		defer data.Close()
		_, _, err = data.Opened()
	}
	busy := (*exchange.BusyError)(nil)
	full := errors.As(err, &busy)
	refused <- full
	switch {
	case full:
		return nil
	case err != nil:
		return err
	}
	return t.window.work(ctx, data)
}

// open opens a session. The provider compresses where the line is slower than
// that.
func (t *Transfer) open(ctx context.Context, p peer.ID) (*exchange.Session, error) {
	return t.swarm.client.OpenNAR(ctx, p, t.want.Hash, true)
}

// judge lets a provider's failure count against it.
func (t *Transfer) judge(p peer.ID, err error) {
	standing := t.swarm.standing
	switch {
	case errors.Is(err, errDisagrees):
	case errors.Is(err, exchange.ErrNotHeld), errors.Is(err, exchange.ErrCorrupt):
		t.swarm.finder.Forget(t.want.Hash, p)
	case errors.Is(err, exchange.ErrProtocol), errors.Is(err, exchange.ErrWrongBytes):
		standing.penalise(p, penaltyWrong)
	default:
		standing.failed(p)
	}
}
