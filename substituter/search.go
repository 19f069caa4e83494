package substituter

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/health"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
)

// maxAnswers bounds the records of peers that one search looks at.
const maxAnswers = 32

// circle is how many peers may be asked.
type circle int

const (
	nobody circle = iota
	allowed
	everybody
)

// search is one search for the record of a hash part: the upstreams, the best
// first, the next one when those before have failed or are late; then the
// peers. docs/metadata.md has the rules.
type search struct {
	s     *Server
	part  nix.HashPart
	turns []*turn
	seen  []*candidate
	// public is true once a public upstream has a record that strangers may be
	// asked about.
	public bool

	hedge   *time.Timer // until the next upstream is asked
	overdue chan *turn  // as many as there are turns
	limit   circle
	told    circle
	rounds  int // of questions to peers, not yet ended
	answers chan answer
}

// answer is a record or an error from an upstream, or a record from a peer;
// with none of them it is the end of a round of peers.
type answer struct {
	turn *turn // nil if from a peer
	info *narinfo.Info
	took time.Duration
	err  error
}

// candidate is what is signed of a record, and all that speaks for it.
type candidate struct {
	info               *narinfo.Info
	fingerprint        string // of info
	upstream           string
	took               time.Duration // by the upstream
	inPublic, inSecret bool          // a public, a private upstream has it
}

// search returns the record of a hash part that is to be believed, or nil;
// definite is true if that is because the upstreams say that it is absent.
// Peers are asked up to the given circle.
func (s *Server) search(ctx context.Context, part nix.HashPart, limit circle) (found *record, definite bool) {
	o := s.explore(ctx, part, limit)
	return o.found, o.state == absent
}

// explore is search, and says how it came to its result.
func (s *Server) explore(ctx context.Context, part nix.HashPart, limit circle) *outcome {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.peers == nil {
		limit = nobody
	}
	f := s.newSearch(part, limit)
	defer f.end()
	f.askUpstream(ctx)
	for {
		f.askPeers(ctx)
		if f.done() {
			return f.outcome(nil)
		}
		select {
		case a := <-f.answers:
			if r := f.take(a); r != nil {
				return f.outcome(r)
			}
			if a.turn != nil {
				f.askUpstream(ctx)
			}
		case <-f.hedge.C:
			f.askUpstream(ctx)
		case t := <-f.overdue:
			t.overdue = true // though its answer remains welcome
		case <-ctx.Done():
			return f.outcome(nil)
		}
	}
}

func (s *Server) newSearch(part nix.HashPart, limit circle) *search {
	turns := s.turns()
	return &search{
		s: s, part: part, limit: limit, turns: turns, answers: make(chan answer),
		hedge: time.NewTimer(time.Hour), overdue: make(chan *turn, len(turns)),
	}
}

// end has upstreams probed that were not needed for long.
func (f *search) end() {
	f.hedge.Stop()
	for _, t := range f.turns {
		if t.standing == waiting {
			t.refresh(t.Heard)
		}
	}
}

// askUpstream asks the next upstream. One that is left alone is passed over; one
// on trial is asked as well, but not waited for.
func (f *search) askUpstream(ctx context.Context) {
	for _, t := range f.turns {
		if t.standing != waiting {
			continue
		}
		admission := t.admit()
		if admission == health.Refused {
			t.standing = skipped
			f.s.traffic.add(t.mirror, askedNarinfo, resultSkipped)
			continue
		}
		t.standing, t.asked, t.trial = asked, time.Now(), admission == health.Trial
		f.s.tasks.begin()
		go f.query(ctx, t)
		if !t.trial {
			f.hedge.Reset(t.HedgeDelay())
			return
		}
	}
}

// patience is how long an upstream is waited for until peers may answer in its
// place: two fifths of the deadline, and up to twice that where it is known to
// be slow.
func (f *search) patience(t *turn) time.Duration {
	if t.trial {
		return t.HedgeDelay()
	}
	least := f.s.setup().Deadline * 2 / 5
	return min(max(least, t.Usual*3/2), 2*least)
}

// query asks one upstream. It may outlive the search, within the deadline, so
// that an upstream which always comes second is not held for dead.
func (f *search) query(ctx context.Context, t *turn) {
	defer f.s.tasks.end()
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.s.setup().Deadline)
	defer cancel()
	patience := time.AfterFunc(f.patience(t), func() {
		if !t.trial {
			t.silent(t.asked)
		}
		f.overdue <- t // which has room for all
	})
	defer patience.Stop()
	own, span := tracing.Ask(own, "upstream narinfo")
	info, err := t.narinfo(own, f.part)
	traceAnswer(span, t.String(), err)
	f.send(ctx, answer{t, info, time.Since(t.asked), err})
}

func (f *search) send(ctx context.Context, a answer) {
	select {
	case f.answers <- a:
	case <-ctx.Done():
	}
}

// circle returns who may be asked now. To ask strangers about a path is to tell
// them of it, so every private upstream must have said that it is not one of
// its own, or a public one that it is public.
func (f *search) circle() circle {
	settled, foreign := true, true   // all have spoken or are silent; all private ones say that it is absent
	reached, pending := false, false // a public upstream was reached, has not spoken yet
	for _, t := range f.turns {
		silent := t.isSilent()
		settled = settled && (silent || t.standing > asked)
		if t.private {
			foreign = foreign && t.standing == absentThere
			continue
		}
		reached = reached || !silent
		pending = pending || t.standing <= asked
	}
	switch {
	case !settled && !f.s.setup().RacePeers:
		return nobody
	case f.public, foreign && (!reached || pending && f.s.setup().RacePeers):
		return everybody
	}
	return allowed
}

func (f *search) askPeers(ctx context.Context) {
	c := min(f.circle(), f.limit)
	if c <= f.told {
		return
	}
	f.told = c
	f.rounds++
	f.s.tasks.begin()
	go func() {
		defer f.s.tasks.end()
		asking, span := tracing.Ask(ctx, "peers narinfo")
		span.Bool("nar_p2p.strangers", c == everybody)
		n := 0
		for info := range f.s.peers.Narinfos(asking, f.part, c == everybody) {
			if info != nil {
				f.send(ctx, answer{info: info})
			}
			if n++; n == maxAnswers || ctx.Err() != nil {
				break
			}
		}
		span.Int("nar_p2p.answers", int64(n))
		span.End(nil)
		f.send(ctx, answer{})
	}()
}

// done reports whether there is nothing to wait for any more.
func (f *search) done() bool {
	return f.rounds == 0 && !slices.ContainsFunc(f.turns, (*turn).isPending)
}

// take notes an answer and returns a record once one is to be believed.
func (f *search) take(a answer) *record {
	switch {
	case a.turn != nil:
		a.turn.note(a)
		if a.err != nil {
			f.s.log.Debug("no narinfo from upstream", zap.Stringer("hashPart", f.part), zap.Error(a.err))
			return nil
		}
	case a.info == nil:
		f.rounds--
		return nil
	case a.info.StorePath.HashPart() != f.part:
		return nil // signed perhaps, but for another path
	}
	c := f.add(a)
	f.compare(a, c)
	under := f.s.setup()
	if err := f.s.believe(c.info, c.upstream); err != nil {
		f.s.log.Debug("narinfo is not believed", zap.Stringer("hashPart", f.part), zap.Error(err))
		f.public = f.public || c.inPublic && f.s.askable(c.info)
		return nil
	}
	if a.turn != nil {
		a.turn.standing = found
	}
	return &record{
		info: under.keys.Clean(c.info), upstream: c.upstream, generation: under.generation,
		private: c.inSecret && !c.inPublic, fetched: time.Now(), took: c.took,
	}
}

// add joins the answer to a candidate that is signed alike, so that the
// signatures of several sources add up. The URL is that of an upstream if any
// has the record.
func (f *search) add(a answer) *candidate {
	c := &candidate{info: a.info, fingerprint: a.info.Fingerprint()}
	if t := a.turn; t != nil {
		c.upstream, c.took, c.inPublic, c.inSecret = t.String(), a.took, !t.private, t.private
	}
	for i, old := range f.seen {
		if old.fingerprint != c.fingerprint {
			continue
		}
		first, second := old, c
		if old.upstream == "" {
			first, second = c, old
		}
		first.info = trust.Merge(first.info, second.info)[0]
		first.inPublic = first.inPublic || second.inPublic
		first.inSecret = first.inSecret || second.inSecret
		f.seen[i] = first
		return first
	}
	f.seen = append(f.seen, c)
	return c
}
