package substituter

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
)

const (
	// inquiryTime is for asking peers about a NAR, and for looking for others in
	// the DHT.
	inquiryTime = 5 * time.Second
	// maxSignatures bounds the signatures of one record that are told of.
	maxSignatures = 32
)

// Inquirer is what Peers may be able to do beside: to tell what each peer says
// of a NAR. With strangers false only those are asked that are none.
type Inquirer interface {
	Inquire(ctx context.Context, hash nix.NARHash, strangers bool) *explain.Peers
}

// Explain tells what is known of the path with this hash part, and why a
// request for it would hit or miss. To find out it asks every upstream, and
// peers where a request would; nobody else. It takes no longer than the
// deadline for records, and a few seconds for the holders of the NAR.
func (s *Server) Explain(ctx context.Context, part nix.HashPart) (*explain.Path, error) {
	if err := s.lookups.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("substituter: explain: %w", err)
	}
	defer s.lookups.Release(1)
	e := &explanation{s: s, part: part, p: &explain.Path{HashPart: part.String(), Time: time.Now(), Upstreams: []explain.Answer{}, DownloadLimit: s.downloads.PerSecond()}}
	e.local, _ = s.askStore(ctx, part)
	e.choose(ctx)
	e.store(ctx)
	e.memories()
	e.peers(ctx)
	e.p.Conclude()
	return e.p, nil
}

// explanation gathers what Explain tells.
type explanation struct {
	s     *Server
	part  nix.HashPart
	p     *explain.Path
	local *narstore.PathInfo // nil if the store does not have the path
	rec   *record            // what Nix gets, or nil
	heard []said             // from upstreams and peers
}

// choose finds the record that Nix would get, by the same rules as lookup, and
// what every upstream says.
func (e *explanation) choose(ctx context.Context) {
	kept := e.s.records.current(e.part)
	if kept != nil {
		e.rec = kept.record
	}
	if e.rec == nil && e.local != nil {
		e.rec = e.s.believedOf(e.local)
	}
	_, left := e.s.absent.left(e.part)
	if left > 0 && e.rec == nil {
		e.p.Absent = &explain.Absent{AgeSeconds: seconds(keepAbsent - left), LeftSeconds: seconds(left)}
	}
	limit := everybody
	if e.rec != nil || left > 0 {
		limit = nobody
	}
	f, found := e.s.survey(ctx, e.part, limit)
	e.upstreams(f)
	for _, c := range f.seen {
		e.heard = append(e.heard, said{c.info, sourceName(fromPeers, c.upstream)})
	}
	switch {
	case e.rec != nil:
		e.p.State = explain.StateFound
	case left > 0:
		e.p.State = explain.StateAbsent
	default:
		e.rec = found
		e.p.State = explain.State(f.outcome(found).state)
	}
	if e.rec != nil {
		e.record(kept != nil)
	}
}

// believedOf returns the record of a path in the local store, if it is believed.
func (s *Server) believedOf(path *narstore.PathInfo) *record {
	info := path.Narinfo()
	under := s.setup()
	if under.keys.Check(info) != nil {
		return nil
	}
	return &record{info: under.keys.Clean(info), generation: under.generation, private: true, fetched: time.Now()}
}

// survey is a search that asks all upstreams at once and hears them out. Peers
// are asked if none of them has a record that is believed.
func (s *Server) survey(ctx context.Context, part nix.HashPart, limit circle) (f *search, believed *record) {
	ctx, cancel := context.WithTimeout(ctx, s.setup().Deadline)
	defer cancel()
	if s.peers == nil {
		limit = nobody
	}
	f = s.newSearch(part, limit)
	defer f.end()
	for range f.turns {
		f.askUpstream(ctx)
	}
	for {
		if believed == nil {
			f.askPeers(ctx)
		}
		if f.done() {
			return f, believed
		}
		select {
		case a := <-f.answers:
			if a.turn != nil {
				a.turn.info = a.info
			}
			if r := f.take(a); r != nil && believed == nil {
				believed = r
			}
		case t := <-f.overdue:
			t.overdue = true
		case <-ctx.Done():
			return f, believed
		}
	}
}

// upstreams tells what the upstreams have said.
func (e *explanation) upstreams(f *search) {
	for _, t := range f.turns {
		a := explain.Answer{
			Upstream: t.String(), Private: t.private, Standing: t.standing.String(),
			TookSeconds: seconds(t.took), UsualSeconds: seconds(t.Usual), Error: problem(t.err),
		}
		switch t.standing {
		case waiting, asked:
			a.Standing = explain.StandingUnreachable
			a.Error = fmt.Sprintf("no answer in %v", e.s.setup().Deadline)
		case skipped:
			a.Error = t.Problem
		default:
			a.Error = strings.TrimPrefix(a.Error, "upstream: "+t.String()+": ")
		}
		if t.info != nil {
			a.NARHash, a.Malformed, a.Signatures = t.info.NARHash.String(), t.info.Malformed, e.s.judge(t.info)
			if t.standing == answered {
				a.Error = e.s.disbelief(t.info)
			}
			e.refusal(t.info)
		}
		e.p.Upstreams = append(e.p.Upstreams, a)
		e.named(t.info)
	}
}

// named notes the path's name.
func (e *explanation) named(info *narinfo.Info) {
	if info != nil && e.p.StorePath == "" {
		e.p.StorePath = info.StorePath.String()
	}
}

// refusal tells that an unsigned record was refused.
func (e *explanation) refusal(info *narinfo.Info) {
	_, left := e.s.refused.left(claimOf(info))
	if left > 0 && e.s.setup().keys.Check(info) != nil {
		e.p.Ban = &explain.Ban{Refused: true, LeftSeconds: seconds(left)}
	}
}

// judge says what each signature of a record is worth.
func (s *Server) judge(info *narinfo.Info) []explain.Signature {
	valid := info.ValidSignatures(s.setup().keys.Trusted)
	judged := []explain.Signature{}
	for _, signature := range info.Signatures[:min(len(info.Signatures), maxSignatures)] {
		verdict := explain.UnknownKey
		switch {
		case slices.Contains(valid, signature):
			verdict = explain.Trusted
		case slices.ContainsFunc(s.setup().keys.Trusted, func(k narinfo.PublicKey) bool { return k.Name == signature.KeyName }):
			verdict = explain.Invalid
		}
		judged = append(judged, explain.Signature{Key: fmt.Sprintf("%.100s", signature.KeyName), Verdict: verdict})
	}
	return judged
}

// disbelief says why a record is not believed.
func (s *Server) disbelief(info *narinfo.Info) string {
	text := fmt.Sprintf("%d of %d trusted keys needed have signed it", len(info.SignedBy(s.setup().keys.Trusted)), max(s.setup().keys.Threshold, 1))
	if info.CA == "" || trust.Addressed(info) {
		return text
	}
	return text + ", and its content address does not prove it"
}

// record tells of the record that Nix gets.
func (e *explanation) record(kept bool) {
	r := e.rec
	e.p.StorePath = r.info.StorePath.String()
	told := &explain.Record{
		Source: r.said().source, NARHash: r.info.NARHash.String(), NARSize: r.info.NARSize,
		References: len(r.info.References), ContentAddress: r.info.CA,
		Kept: kept, AgeSeconds: seconds(time.Since(r.fetched)), TookSeconds: seconds(r.took),
		RefreshDue: kept && r.stale(), Private: r.private,
		Strangers: e.s.mayTellStrangers(r), Signatures: e.s.judge(r.info),
		Signers: len(r.info.SignedBy(e.s.setup().keys.Trusted)), Threshold: max(e.s.setup().keys.Threshold, 1),
	}
	switch {
	case told.Signers >= told.Threshold:
		told.Proof = explain.BySignatures
	case e.s.setup().keys.Check(r.info) == nil:
		told.Proof = explain.ByName
	default:
		told.Proof = explain.ByContent
	}
	switch {
	case told.Strangers:
	case r.private:
		told.NoStrangers = "no public upstream is known to have it"
	default:
		told.NoStrangers = "no key whose paths may be shared has signed it, or its name is excluded"
	}
	e.p.Record = told
}

// store tells of the local store.
func (e *explanation) store(ctx context.Context) {
	if e.local == nil {
		return
	}
	info := e.local.Narinfo()
	told := &explain.Store{
		NARHash: info.NARHash.String(), NARSize: info.NARSize, Signatures: e.s.judge(info), Trusted: e.s.setup().keys.Check(info) == nil,
	}
	if err := e.s.shared(ctx, e.local.Path); err != nil {
		told.NotShared = problem(err)
	} else {
		told.Shared = true
	}
	e.p.Store = told
	e.named(info)
	e.s.conflicts.note(append(e.heard, said{info, fromStore.String()})...)
}

// memories tells what is remembered of the path and its NAR.
func (e *explanation) memories() {
	e.p.Conflict = e.s.conflicts.of(e.part)
	if e.rec == nil {
		return
	}
	hash := e.rec.info.NARHash
	e.p.Fetch = e.s.reports.last(hash)
	b, left := e.s.bans.left(hash)
	if left == 0 {
		b = ban{}
	}
	e.p.Plan = e.s.plan(e.rec, b, 0).told(e.rec.info.NARSize)
	if len(b.excluded.strings()) > 0 {
		e.p.Ban = &explain.Ban{LeftSeconds: seconds(left), Upstreams: b.excluded.upstreams}
		for _, name := range b.excluded.kinds.strings() {
			e.p.Ban.Excluded = append(e.p.Ban.Excluded, explain.Kind(name))
		}
	}
}

// peers tells what peers say of the NAR.
func (e *explanation) peers(ctx context.Context) {
	asker, ok := e.s.peers.(Inquirer)
	switch {
	case !ok || e.rec == nil:
		return
	case e.rec.info.NARSize > chunk.MaxNARSize:
		e.p.Peers = &explain.Peers{Unasked: "NARs of this size are not exchanged between peers", Answers: []explain.PeerAnswer{}}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, inquiryTime)
	defer cancel()
	e.p.Peers = asker.Inquire(ctx, e.rec.info.NARHash, e.s.mayTellStrangers(e.rec))
}

// seconds is a time as explanations have it: to the millisecond, and of what
// took less to the microsecond.
func seconds(d time.Duration) float64 {
	if d < time.Millisecond {
		return d.Round(time.Microsecond).Seconds()
	}
	return d.Round(time.Millisecond).Seconds()
}
