package swarm

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/netgroup"
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
	// Via is the way that they took, such as ViaDirect.
	Via string
}

// The ways that bytes take. ViaStore is none: they were in this machine's store.
const (
	ViaStore  = "store"
	ViaLAN    = "lan"
	ViaDirect = "direct"
	ViaRelay  = "relay"
)

// Progress says how far a transfer is.
type Progress struct {
	// Verified counts the bytes that came and were verified, in any order.
	Verified int64
	// Wasted counts those that came and were of no use: twice, wrong, or under a
	// manifest that was given up.
	Wasted int64
	// Reused counts those that were taken from this machine's store instead.
	Reused int64
}

// Transfer is one NAR on its way. Read gives the bytes from the offset wanted
// on, each verified against the manifest; io.EOF comes only after the manifest
// was confirmed by its sender.
type Transfer struct {
	swarm      *Swarm
	want       Want
	candidates *candidates
	votes      *votes
	session    *reuse.Session // nil where nothing is taken from the store
	// cancel ends what running counts.
	cancel  context.CancelFunc
	running sync.WaitGroup
	// polled and verdict are for what happens once; voted is closed when all
	// providers were asked for their root.
	polled, verdict, closing sync.Once
	voted                    chan struct{}
	poll                     func()
	// names are the texts of peer IDs, for Handed alone: they take their time.
	names map[peer.ID]string

	mu sync.Mutex
	// now is the attempt in use. Once fixed is set it is the last one: bytes were
	// handed out, or are about to be.
	now   *attempt
	fixed bool
	// begun counts the attempts.
	begun int
	// outs have failed and are not tried again; suspects sent a manifest that was
	// given up, and dropped are the roots of these.
	outs, suspects map[peer.ID]struct{}
	dropped        map[chunk.Root]struct{}
	// recalled are the dropped roots of earlier transfers, nil where nothing is
	// held against anybody; for fetch alone.
	recalled map[chunk.Root]struct{}
	// wasted counts the bytes of attempts that were given up.
	wasted int64
}

var _ io.ReadCloser = (*Transfer)(nil)

func (s *Swarm) newTransfer(ctx context.Context, want Want) *Transfer {
	t := &Transfer{
		swarm: s, want: want, votes: newVotes(), voted: make(chan struct{}),
		outs: make(map[peer.ID]struct{}),
	}
	t.dropped, t.suspects = s.doubts.of(want.Hash)
	if len(t.dropped)+len(t.suspects) > 0 {
		t.recalled = maps.Clone(t.dropped)
	}
	t.candidates = newCandidates(t.dial, t.group)
	t.session = s.reuse(ctx, want)
	t.now, t.begun = t.newAttempt(preference{}), 1
	return t
}

// start begins the search for providers and the fetching.
func (t *Transfer) start(ctx context.Context) {
	ctx, t.cancel = context.WithCancel(ctx)
	t.poll = func() { t.ballot(ctx) }
	t.running.Go(func() {
		t.candidates.gather(ctx, t.swarm.finder.Providers(ctx, t.want.Hash, t.want.Strangers))
	})
	t.running.Go(func() {
		if err := t.fetch(ctx); err != nil {
			t.attempt().window.fail(err)
		}
	})
}

// attempt returns the one in use.
func (t *Transfer) attempt() *attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// dial connects to a provider that is worth it.
func (t *Transfer) dial(ctx context.Context, p peer.AddrInfo) error {
	if !t.swarm.standing.Usable(p.ID) {
		return errUnusable
	}
	connecting, span := tracing.Ask(ctx, "connect")
	err := t.swarm.client.Connect(connecting, p)
	if span.On() {
		span.String("nar_p2p.peer", p.ID.String())
		span.End(err)
	}
	if err != nil && ctx.Err() == nil {
		t.swarm.log.Debug("provider not reached", zap.Stringer("peer", p.ID), zap.Error(err))
		t.swarm.standing.failed(p.ID)
	}
	if err == nil && t.swarm.client.Pathless(p.ID) {
		return exchange.ErrNoPath
	}
	return err
}

// group returns the address group of a provider, or false for one that is
// trusted.
func (t *Transfer) group(p peer.AddrInfo) (netip.Prefix, bool) {
	addr, direct := t.swarm.client.DirectAddr(p.ID)
	switch {
	case t.swarm.trusted(p.ID, addr): // nil where there is no direct connection
		return netip.Prefix{}, false
	case direct:
		return netgroup.Of(addr)
	}
	for _, addr := range p.Addrs {
		if g, ok := netgroup.Of(addr); ok {
			return g, true
		}
	}
	return netip.Prefix{}, false
}

// Read reads the next verified bytes.
func (t *Transfer) Read(p []byte) (int, error) {
	for {
		a := t.attempt()
		n, err := a.window.Read(p)
		if t.keep(a) {
			return n, err
		}
	}
}

// keep makes an attempt the last one, and reports false where another has taken
// its place.
func (t *Transfer) keep(a *attempt) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now != a {
		return false
	}
	t.fixed = true
	return true
}

// Close ends the transfer.
func (t *Transfer) Close() error {
	t.closing.Do(func() {
		t.cancel()
		t.running.Wait()
		t.attempt().window.close()
		t.endReuse()
		t.swarm.memory.Release(budget.Least, leastRoom(t.want))
		t.swarm.count(t.Progress())
	})
	return nil
}

// Earned reports whether the manifest has earned that bytes are used before the
// whole NAR is verified: a trusted peer sent it, or one that was honest before,
// or it is complete and a trusted peer, or providers in two address groups, have
// the same. It can become true while the transfer runs, and then stays so.
func (t *Transfer) Earned() bool {
	a := t.attempt()
	return a.earned() && t.keep(a)
}

func (a *attempt) earned() bool {
	if a.plan.implicit() {
		return true
	}
	if _, trusted := a.plan.source(); trusted {
		return true
	}
	root, complete := a.plan.known()
	return complete && a.votes.weight(root).enough()
}

// Verdict tells whether the NAR as a whole had its hash. It must be called only
// where all of it was checked; the first call counts.
func (t *Transfer) Verdict(ok bool) {
	a := t.attempt()
	sender, _ := a.plan.source()
	if a.plan.implicit() || sender == "" {
		return
	}
	t.verdict.Do(func() {
		if ok {
			t.keepChunks(a)
			t.swarm.standing.proved(sender)
			return
		}
		if root, complete := a.plan.known(); complete {
			t.swarm.doubts.refute(t.want.Hash, root)
		}
		t.swarm.standing.lied(sender)
		t.swarm.log.Warn("peer sent a manifest that the whole NAR proves wrong",
			zap.Stringer("peer", sender), zap.Stringer("narHash", t.want.Hash))
	})
}

// Progress says how far the transfer is. Where it had to begin anew, so does
// what is verified.
func (t *Transfer) Progress() Progress {
	t.mu.Lock()
	a, wasted := t.now, t.wasted
	t.mu.Unlock()
	a.window.mu.Lock()
	defer a.window.mu.Unlock()
	return Progress{Verified: a.window.tally.verified, Wasted: wasted + a.window.tally.wasted, Reused: a.window.tally.taken}
}

// Sources returns the peers that bytes came from so far, the largest first.
func (t *Transfer) Sources() []Source {
	w := t.attempt().window
	w.mu.Lock()
	defer w.mu.Unlock()
	sources := make([]Source, 0, len(w.tally.sources))
	for p, n := range w.tally.sources {
		sources = append(sources, Source{Peer: p.String(), Bytes: n, Via: w.tally.via[p]})
	}
	slices.SortFunc(sources, func(a, b Source) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Peer, b.Peer))
	})
	return sources
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
	case errors.Is(err, errDisagrees), errors.Is(err, exchange.ErrNoPath):
	case errors.Is(err, exchange.ErrNotHeld), errors.Is(err, exchange.ErrCorrupt):
		t.swarm.finder.Forget(t.want.Hash, p)
	case errors.Is(err, exchange.ErrProtocol), errors.Is(err, exchange.ErrWrongBytes):
		standing.penalise(p, penaltyWrong)
	default:
		standing.failed(p)
	}
}
