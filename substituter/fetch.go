package substituter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/plan"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

const (
	// pieceSize is the buffer of a transfer, in bytes: smaller ones cost
	// throughput on libp2p's transports.
	pieceSize = 128 << 10
	// peerTime is for finding peers, and for spooling what they send where that
	// is needed: Nix gives up after 300 s without a byte, and needs time for
	// the next attempt.
	peerTime = 60 * time.Second
	// stallTime ends a stream that delivers nothing.
	stallTime = 10 * time.Second
	// slowBytes is what a source must bring in stallTime of waiting for it while
	// there is one that has not had its turn.
	slowBytes = 1 << 20
	// tryAfter is the time of waiting for a source after which, if as much is to
	// come, one is tried of which it is not known how fast it is.
	tryAfter = 5 * time.Second
	// maxTries is how often a source that breaks in the middle is opened.
	maxTries = 3
	// lookEvery is how often it is considered who else might join, and who has
	// fallen behind.
	lookEvery = 50 * time.Millisecond
)

var errNoSource = errors.New("no source is left")

// entry is a source in the plan of a fetch.
type entry struct {
	source
	name  string // of an upstream
	after time.Duration
	// expected is what was expected of it, and known, if not 0, the rate that has
	// shown itself since, in bytes a second.
	expected plan.Expectation
	known    float64
	// local is the share of the NAR that is expected to be in the local store.
	local float64
	tries int
	// stuck is one more than the offset at which it has delivered nothing: until
	// another has, it need not be tried again.
	stuck int64
	// got is how many bytes of the NAR have come from it, and not out of the local store.
	got int
	// hadItsTurn is true once it has delivered or failed; not if it was late.
	hadItsTurn bool
}

// fetch brings one NAR, from the offset of its gate's digest to its end, out
// of several sources. Those of the plan that run all deliver from where the
// gate was when they started; it takes each byte from whoever brings it first.
type fetch struct {
	s      *Server
	plan   *fetchPlan
	gate   *verify.Gate
	report *report
	begin  time.Time

	running []*runner
	pieces  chan piece // of all that run
	// quiet is since when nothing has come, or nobody joined.
	quiet time.Time
	errs  []error // of those that failed since the last byte

	// begun is the offset at which the fetch began, and inherited true if peers
	// supplied bytes before it.
	begun     int64
	inherited bool
	// started and hedged are true once any source but the store has started, or
	// joined others that had not failed.
	started, hedged bool
	givers          []*entry  // who supplied bytes
	fed             []*runner // with a transfer that supplied bytes
}

func (s *Server) newFetch(p *fetchPlan, gate *verify.Gate, r *report) *fetch {
	r.plan(p, gate.Digest().Offset())
	s.plans.decided(p)
	if p.Reason == plan.NotWorthSearch {
		s.peers.Dismiss(gate.Digest().Target().Hash)
	}
	return &fetch{
		s: s, plan: p, gate: gate, report: r, pieces: make(chan piece), begin: time.Now(),
		begun: gate.Digest().Offset(), inherited: gate.Digest().FromPeers(),
	}
}

func (f *fetch) offset() int64 { return f.gate.Digest().Offset() }
func (f *fetch) size() int64   { return f.gate.Digest().Target().Size }

// fetch passes everything through the gate. The error is ErrMismatch, a
// ClientError, or says why no source is left.
func (f *fetch) fetch(ctx context.Context) error {
	defer f.close()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for f.offset() < f.size() {
		if len(f.running) == 0 && !f.start(ctx, explain.WhenFailed, f.next()) {
			return errors.Join(append([]error{errNoSource}, f.errs...)...)
		}
		select {
		case p := <-f.pieces:
			if err := f.take(ctx, p); err != nil {
				return err
			}
		case <-look.C:
			f.look(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.complete()
	_, span := tracing.Start(ctx, "verify")
	f.judge(f.gate.Verified())
	err := f.gate.Finish()
	span.End(err)
	if errors.Is(err, verify.ErrMismatch) || errors.Is(err, verify.ErrAddress) {
		f.report.wrong()
	}
	return err
}

// start starts a source at the gate's offset; false means that there is none.
func (f *fetch) start(ctx context.Context, why explain.Joining, e *entry) bool {
	if e == nil {
		return false
	}
	e.tries++
	if e.tries > 1 || f.started {
		f.s.plans.joined(e.kind(), why)
		f.hedged = f.hedged || why != explain.WhenFailed
	} else {
		why = explain.AtOnce
	}
	// That the store does not have it is the rule, and no failure.
	f.started = f.started || e.kind() != fromStore
	f.report.start(e, why)
	f.quiet = time.Now()
	f.running = append(f.running, f.run(ctx, e))
	return true
}

// next returns the source that is to start next, or nil: of those that may
// still be of use the one with the fewest tries, in the plan's order.
func (f *fetch) next() *entry {
	var best *entry
	for _, e := range f.plan.entries {
		if f.mayStart(e) && (best == nil || e.tries < best.tries) {
			best = e
		}
	}
	return best
}

func (f *fetch) mayStart(e *entry) bool {
	return e.tries < maxTries && e.stuck != f.offset()+1 && f.runnerOf(e) == nil
}

func (f *fetch) runnerOf(e *entry) *runner {
	for _, r := range f.running {
		if r.entry == e {
			return r
		}
	}
	return nil
}

// take passes on what of a piece is new. The error is the gate's; a source that
// fails is only noted.
func (f *fetch) take(ctx context.Context, p piece) error {
	r := p.from
	defer r.reuse(p)
	if !slices.Contains(f.running, r) {
		f.waste(r.entry, len(p.data)) // it was dropped meanwhile
		return nil
	}
	r.got(p)
	old := min(int64(len(p.data)), f.offset()-p.offset)
	f.waste(r.entry, int(old))
	if fresh := p.data[old:]; len(fresh) > 0 {
		f.credit(r, len(fresh), without(p.parts, old))
		if _, err := f.gate.Write(fresh); err != nil {
			f.report.stop(r.entry, endOf(err), err)
			return err
		}
		f.quiet, f.errs = time.Now(), nil
	}
	if p.err != nil && f.offset() < f.size() {
		f.failed(ctx, r, p.err)
	}
	return nil
}

// credit notes that n bytes come from a source, and whom it has them from.
func (f *fetch) credit(r *runner, n int, parts []Source) {
	k := r.entry.kind()
	local := f.local(r, n)
	r.entry.got += n - local
	f.s.counters.bytes.count(k.String(), n-local)
	f.s.counters.bytes.count(reused, local)
	f.s.measure(k, parts)
	f.report.got(r.entry, parts)
	if k == fromPeers {
		f.gate.Digest().MarkPeers()
	}
	if r.fed {
		return
	}
	r.fed, r.entry.hadItsTurn = true, true
	f.report.began(r.entry)
	if len(f.givers) == 0 {
		f.s.plans.firstByte(r.entry, time.Since(r.started))
	}
	if !slices.Contains(f.givers, r.entry) {
		f.givers = append(f.givers, r.entry)
	}
	if r.stream.transfer != nil {
		f.fed = append(f.fed, r)
	}
	f.report.parts(r.entry, r.stream.sources)
}

// local returns how many of n bytes came out of the local store instead of from
// the source, and notes them.
func (f *fetch) local(r *runner, n int) int {
	bySum, byMaskedSum := r.stream.reused()
	s := min(bySum-r.bySum, int64(n))
	m := min(byMaskedSum-r.byMaskedSum, int64(n)-s)
	if s+m == 0 {
		return 0
	}
	r.bySum += s
	r.byMaskedSum += m
	f.report.reused(r.entry, s, m)
	return int(s + m)
}

func (f *fetch) waste(e *entry, n int) {
	if n > 0 {
		f.s.plans.waste(e.kind(), n)
		f.report.wasted(e, n)
	}
}

// inVain counts all that has come, which was wrong, and has reached nobody.
func (f *fetch) inVain() {
	for _, e := range f.givers {
		f.waste(e, e.got)
	}
}

// failed draws the conclusions from a source that has failed, and starts the
// next unless another one delivers.
func (f *fetch) failed(ctx context.Context, r *runner, err error) {
	e := r.entry
	e.hadItsTurn = true
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	end := explain.BrokeOff
	if !r.fed {
		end = explain.Unavailable
		e.stuck = f.offset() + 1
	}
	switch {
	case errors.Is(err, verify.ErrMismatch):
		// No client has seen what was spooled; but if peers gave what went before
		// it, that may be the wrong part. Else there may be others that are honest, whose
		// bytes are spooled too.
		digest := f.gate.Digest()
		if src, ok := e.source.(peerSource); ok && !digest.FromPeers() && time.Since(f.begin) < lieTime {
			src.lied, e.source, e.stuck = true, src, 0
		} else {
			e.tries = maxTries
		}
		f.s.distrust(digest.Target(), blame{kinds: kinds(0).with(e.kind())}, digest.FromPeers())
	case errors.Is(err, upstream.ErrAbsent):
		e.tries = maxTries
	}
	// Not %w: the conclusions are drawn, and what the gate has let through is
	// another matter.
	f.errs = append(f.errs, fmt.Errorf("%s: %v", e.kind(), err))
	f.drop(r, end, err)
	if !slices.ContainsFunc(f.running, func(other *runner) bool { return other.fed }) {
		f.start(ctx, explain.WhenFailed, f.next())
	}
}

// drop ends a source.
func (f *fetch) drop(r *runner, end explain.End, err error) {
	f.report.stop(r.entry, end, err)
	f.report.held(r.entry, r.line.Held())
	f.running = slices.DeleteFunc(f.running, func(other *runner) bool { return other == r })
	r.drop()
	if !r.fed || r.stream.transfer == nil {
		r.release() // no verdict is due
	}
}

// look lets others join, and drops those that have fallen behind for good.
func (f *fetch) look(ctx context.Context) {
	leader := f.leader()
	if leader == nil {
		return
	}
	if leader.line.Waits() {
		f.quiet = time.Now() // that nothing comes is no fault of its
	}
	for _, r := range slices.Clone(f.running) {
		if r != leader && plan.Lost(f.size(), r.state(), leader.state()) {
			end := explain.Late
			if r.fed {
				end = explain.TooSlow
			}
			r.entry.known = max(r.state().Pace(), 1)
			if r.next == r.begun {
				r.entry.known = 1 // so that it does not come back for what was expected of it
			}
			f.drop(r, end, nil)
		}
	}
	if why, e := f.joiner(leader); e != nil {
		f.start(ctx, why, e)
	}
}

// leader is who is furthest.
func (f *fetch) leader() *runner {
	if len(f.running) == 0 {
		return nil
	}
	return slices.MaxFunc(f.running, func(a, b *runner) int { return cmp.Compare(a.next, b.next) })
}

// joiner returns a source that should join those that run, or nil, and why.
func (f *fetch) joiner(leader *runner) (explain.Joining, *entry) {
	next := f.next()
	if next == nil {
		return "", nil
	}
	after := next.after
	if f.offset() > f.begun {
		after = plan.Midway(after)
	}
	state := leader.state()
	switch {
	case time.Since(f.quiet) >= after:
		return explain.WhenSilent, next
	case len(f.running) > 1 || !state.Sampled() && state.Rate == 0:
		return "", nil // it is not known how fast the one is that runs
	case leader.slow() && !next.hadItsTurn:
		return explain.WhenSlow, next
	}
	left, runs := f.size()-f.offset(), plan.Expectation{Rate: state.Pace()}
	takes, _ := runs.Total(left)
	for _, e := range f.plan.entries {
		if !f.mayStart(e) {
			continue
		}
		expected, exists := e.now(f.offset())
		switch {
		case plan.Joins(left, expected, runs):
			return explain.WhenFaster, e
		case exists && expected.Rate == 0 && !e.hadItsTurn && leader.waited >= tryAfter && takes >= tryAfter:
			e.hadItsTurn = true
			return explain.WhenSlow, e
		}
	}
	return "", nil
}

// complete notes that the last byte has come.
func (f *fetch) complete() {
	f.s.plans.complete(f)
	for _, r := range f.running {
		end := explain.Complete
		if r.next < f.size() {
			end = explain.Late
		}
		f.report.stop(r.entry, end, nil)
	}
}

// judge tells the peers' transfers whether the whole matched. Where peers of an
// earlier request supplied the beginning, nobody knows whose fault it was.
// Where the rest is an upstream's, it is the peers'.
func (f *fetch) judge(ok bool) {
	for _, r := range f.fed {
		if ok || !f.inherited {
			r.stream.transfer.Verdict(ok)
		}
	}
}

// culprits are whom a mismatch is blamed on: the peers if any of the bytes are
// theirs, else all that supplied any. Who supplied what was kept of an earlier
// request is not known but for its kind.
func (f *fetch) culprits() (b blame) {
	if f.gate.Digest().FromPeers() {
		return blame{kinds: kinds(0).with(fromPeers)}
	}
	for _, e := range f.givers {
		if f.begun == 0 && e.name != "" {
			b.upstreams = append(b.upstreams, e.name)
		} else {
			b.kinds = b.kinds.with(e.kind())
		}
	}
	return b
}

// close ends all that run, and waits for what has been learnt of those that have
// delivered all.
func (f *fetch) close() {
	delivered := slices.Clone(f.running)
	for _, r := range delivered {
		f.drop(r, explain.Stopped, nil)
	}
	for _, r := range f.fed {
		f.report.parts(r.entry, r.stream.transfer.Sources())
		r.release()
	}
	for _, r := range delivered {
		if r.next == f.size() {
			<-r.ended
		}
	}
}

// endOf is how an attempt ends by an error of the gate.
func endOf(err error) explain.End {
	if errors.Is(err, verify.ErrMismatch) {
		return explain.Wrong
	}
	return explain.Stopped // the client does not read any more
}
