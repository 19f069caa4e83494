package substituter

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

const (
	// hedgeAfter is how long an upstream may be silent before the next one is
	// asked too: about twice a slow round trip with a new TLS connection.
	hedgeAfter = 300 * time.Millisecond
	// maxAnswers bounds the records of peers that one search looks at.
	maxAnswers = 32
)

// standing is what an upstream has said in one search.
type standing int

const (
	waiting     standing = iota // not asked yet
	asked                       // no answer yet
	absent                      // it does not have the path
	unreachable                 // no answer, or nonsense
	answered                    // it has a record, which is not believed
)

// circle is how many peers may be asked.
type circle int

const (
	nobody circle = iota
	allowed
	everybody
)

// search is one search for the record of a hash part: the upstreams in order,
// the next one when those before have failed or are slow; then the peers.
type search struct {
	s    *Server
	part nix.HashPart
	seen []*candidate

	standings []standing
	impatient bool // the upstreams have had their time
	limit     circle
	told      circle
	rounds    int // of questions to peers, not yet ended
	answers   chan answer
}

// answer is a record or an error from an upstream, or a record from a peer;
// with none of them it is the end of a round of peers.
type answer struct {
	from int // the upstream's index, or -1
	info *narinfo.Info
	err  error
}

// candidate is what is signed of a record, and all that speaks for it.
type candidate struct {
	info               *narinfo.Info
	fingerprint        string // of info
	upstream           string
	inPublic, inSecret bool // a public, a private upstream has it
}

// search returns the record of a hash part that is to be believed, or nil;
// definite is true if that is because all upstreams say that it is absent.
// Peers are asked up to the given circle.
func (s *Server) search(ctx context.Context, part nix.HashPart, limit circle) (found *record, definite bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.peers == nil {
		limit = nobody
	}
	f := &search{
		s: s, part: part, limit: limit,
		standings: make([]standing, len(s.upstreams)), answers: make(chan answer),
	}
	hedge := time.NewTicker(hedgeAfter)
	defer hedge.Stop()
	// Half of the time is for the upstreams alone, so that peers can answer in
	// the other half when an upstream hangs.
	patience := time.NewTimer(s.Deadline / 2)
	defer patience.Stop()
	f.askUpstream(ctx)
	for {
		f.askPeers(ctx)
		if f.done() {
			return nil, !slices.ContainsFunc(f.standings, func(st standing) bool { return st != absent })
		}
		select {
		case a := <-f.answers:
			if r := f.take(a); r != nil {
				return r, false
			}
			if a.from >= 0 {
				f.askUpstream(ctx)
			}
		case <-hedge.C:
			f.askUpstream(ctx)
		case <-patience.C:
			f.losePatience()
		case <-ctx.Done():
			return nil, false
		}
	}
}

// askUpstream asks the next upstream. One that has just failed is asked as
// well, but not waited for.
func (f *search) askUpstream(ctx context.Context) {
	for i, m := range f.s.upstreams {
		if f.standings[i] != waiting {
			continue
		}
		f.standings[i] = asked
		suspect := m.suspect.Load()
		f.s.tasks.begin()
		go f.query(ctx, i)
		if !suspect {
			return
		}
	}
}

// query asks one upstream. It may outlive the search, within the deadline, so
// that an upstream which always comes second is not held for dead.
func (f *search) query(ctx context.Context, i int) {
	defer f.s.tasks.end()
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.s.Deadline)
	defer cancel()
	m := f.s.upstreams[i]
	info, err := m.Narinfo(own, f.part)
	m.suspect.Store(err != nil && !errors.Is(err, upstream.ErrAbsent))
	f.send(ctx, answer{i, info, err})
}

func (f *search) send(ctx context.Context, a answer) {
	select {
	case f.answers <- a:
	case <-ctx.Done():
	}
}

// losePatience takes upstreams that are still silent for unreachable, though
// their answers remain welcome.
func (f *search) losePatience() {
	f.impatient = true
	for i, m := range f.s.upstreams {
		if f.standings[i] == asked {
			m.suspect.Store(true)
		}
	}
}

// silent reports whether an upstream is not, or not any more, to be waited for.
func (f *search) silent(i int) bool {
	st := f.standings[i]
	return st == unreachable || st <= asked && (f.impatient || f.s.upstreams[i].suspect.Load())
}

// circle returns who may be asked now. Allowed peers are, once every upstream
// has spoken or is silent: a team's own builds are on no cache. Strangers are
// only where no public upstream can be reached, and only after every private
// one has said that the path is not one of its own.
func (f *search) circle() circle {
	c := everybody
	for i, m := range f.s.upstreams {
		silent := f.silent(i)
		switch {
		case f.standings[i] <= asked && !silent:
			return nobody
		case m.private && f.standings[i] != absent, !m.private && !silent:
			c = allowed
		}
	}
	return c
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
		n := 0
		for info := range f.s.peers.Narinfos(ctx, f.part, c == everybody) {
			if info != nil {
				f.send(ctx, answer{from: -1, info: info})
			}
			if n++; n == maxAnswers || ctx.Err() != nil {
				break
			}
		}
		f.send(ctx, answer{from: -1})
	}()
}

// done reports whether no answer can come any more.
func (f *search) done() bool {
	return f.rounds == 0 && !slices.ContainsFunc(f.standings, func(st standing) bool { return st <= asked })
}

// take notes an answer and returns a record once one is to be believed.
func (f *search) take(a answer) *record {
	switch {
	case a.from < 0 && a.info == nil:
		f.rounds--
		return nil
	case a.from >= 0 && errors.Is(a.err, upstream.ErrAbsent):
		f.standings[a.from] = absent
		return nil
	case a.from >= 0 && a.err != nil:
		f.standings[a.from] = unreachable
		f.s.log.Debug("no narinfo from upstream", zap.Stringer("hashPart", f.part), zap.Error(a.err))
		return nil
	case a.from >= 0:
		f.standings[a.from] = answered
	}
	if a.info.StorePath.HashPart() != f.part {
		return nil // signed perhaps, but for another path
	}
	c := f.add(a)
	if err := f.s.keys.Check(c.info); err != nil {
		f.s.log.Debug("narinfo is not believed", zap.Stringer("hashPart", f.part), zap.Error(err))
		return nil
	}
	return &record{
		info: f.s.keys.Clean(c.info), upstream: c.upstream,
		private: c.inSecret && !c.inPublic, fetched: time.Now(),
	}
}

// add joins the answer to a candidate that is signed alike, so that the
// signatures of several sources add up. The URL is that of an upstream if any
// has the record.
func (f *search) add(a answer) *candidate {
	c := &candidate{info: a.info, fingerprint: a.info.Fingerprint()}
	if a.from >= 0 {
		m := f.s.upstreams[a.from]
		c.upstream, c.inPublic, c.inSecret = m.String(), !m.private, m.private
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
