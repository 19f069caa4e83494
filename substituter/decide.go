package substituter

import (
	"cmp"
	"slices"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/decompress"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/plan"
)

// Estimator is what Peers may be able to do beside: to say what is to be
// expected of those who hold a NAR. It does not block.
type Estimator interface {
	Estimate(hash nix.NARHash) Estimate
}

// Estimate is what is expected of the peers that are known to hold a NAR.
type Estimate struct {
	// Providers is how many are known.
	Providers int
	// LAN is true if one of them is on the local network.
	LAN bool
	// Rate is that of all together in bytes a second, 0 if it is not known.
	Rate float64
	// FirstByte is the usual time to the first verified byte, 0 if it is not
	// known.
	FirstByte time.Duration
}

// Glancer is what Peers may be able to do beside: to look for a NAR that will
// probably be asked for among those who are known already, where a search for others
// is not worth it. It does not block.
type Glancer interface {
	Glance(hash nix.NARHash, strangers bool)
}

// Saver is what Peers may be able to do beside: to say what share of a NAR, from
// 0 to 1, is expected to lie in the local store already, so that peers need not
// send it. It does not block.
type Saver interface {
	Saving(path nix.StorePath, hash nix.NARHash, size int64) float64
}

// Reuser is what a Transfer may be able to do beside: to say how many of the
// bytes that were read so far came out of the local store and not from peers, as
// they were there or with other hash parts.
type Reuser interface {
	Reused() (bySum, byMaskedSum int64)
}

// fetchPlan is the sources of a NAR, in the order in which they start.
type fetchPlan struct {
	plan.Decision
	entries  []*entry
	excluded blame
}

// expect has peers that hold a NAR looked for ahead of need.
func (s *Server) expect(rec *record) {
	hash, strangers := rec.info.NARHash, s.mayTellStrangers(rec)
	if glancer, ok := s.peers.(Glancer); ok && s.plan(rec, ban{}, 0).Reason == plan.NotWorthSearch {
		glancer.Glance(hash, strangers)
		return
	}
	s.peers.Expect(hash, strangers)
}

// plan is the one place where it is decided where the bytes of a NAR, from an
// offset on, come from. Package plan has the rules.
func (s *Server) plan(rec *record, b ban, offset int64) *fetchPlan {
	p := &fetchPlan{excluded: b.excluded}
	if s.store != nil && !b.excluded.has(fromStore, "") {
		p.entries = append(p.entries, &entry{source: storeSource{s.store, rec, s.otherInStore}})
	}
	var upstreams []*entry
	known := plan.Upstream{}
	for _, r := range s.caches(rec) {
		if b.excluded.has(fromUpstream, r.String()) {
			continue
		}
		src := upstreamSource{r.mirror, s.setup().Deadline, rec}
		e := &entry{source: src, name: r.String(), expected: r.expected()}
		if len(upstreams) == 0 {
			known = plan.Upstream{Works: r.delivers(), Expectation: src.from(e.expected, offset)}
		}
		upstreams = append(upstreams, e)
	}
	var peers []*entry
	var holders *plan.Peers
	if s.peers != nil && !b.excluded.has(fromPeers, "") {
		src := peerSource{
			peers: s.peers, spool: s.spool, strangers: s.mayTellStrangers(rec), hash: rec.info.NARHash, path: rec.info.StorePath,
			references: rec.info.References, lied: b.lies > 0,
		}
		if saver, ok := s.peers.(Saver); ok {
			src.local = saver.Saving(src.path, src.hash, rec.info.NARSize)
		}
		estimate := src.estimate()
		estimate.Lied = b.lies > 0
		holders = &estimate
		peers = []*entry{{source: src, expected: estimate.Expected(), local: src.local}}
	}
	p.Decision = plan.Decide(rec.info.NARSize-offset, holders, known)
	for _, e := range upstreams {
		e.after = p.UpstreamAfter
	}
	for _, e := range peers {
		e.after = p.PeersAfter
	}
	if p.PeersFirst {
		upstreams, peers = peers, upstreams
	}
	p.entries = slices.Concat(p.entries, upstreams, peers)
	return p
}

// hold says whether the NAR is held until it is verified, whoever it comes from.
func (f *fetchPlan) hold(held bool) {
	for _, e := range f.entries {
		if src, ok := e.source.(peerSource); ok {
			src.held = held
			e.source = src
		}
	}
}

// expected is what is expected of the upstream's NARs. Where none was fetched
// yet, its narinfos tell how far away it is.
func (r ranked) expected() plan.Expectation {
	e := plan.Expectation{FirstByte: r.FirstByte, Rate: r.Throughput}
	if e.FirstByte == 0 {
		e.FirstByte = r.Latency
	}
	return e
}

// from is what is expected from an offset on: before that everything has to be
// decompressed.
func (src upstreamSource) from(e plan.Expectation, offset int64) plan.Expectation {
	if e.Rate > 0 && src.again(offset) > 0 {
		e.FirstByte += plan.Span(float64(offset) / e.Rate)
	}
	return e
}

// again is how many bytes before the offset have to come once more.
func (src upstreamSource) again(offset int64) int64 {
	if src.rec.upstream == src.m.String() && src.rec.info.Compression != decompress.None {
		return offset
	}
	return 0
}

// estimate is what is known of those who hold the NAR.
func (src peerSource) estimate() plan.Peers {
	if estimator, ok := src.peers.(Estimator); ok {
		if e := estimator.Estimate(src.hash); e.Providers > 0 {
			return plan.Peers{
				Providers: e.Providers, LAN: e.LAN, Local: src.local,
				Expectation: plan.Expectation{FirstByte: e.FirstByte, Rate: e.Rate},
			}
		}
	}
	if src.peers.Known(src.hash) {
		return plan.Peers{Providers: 1, Local: src.local}
	}
	return plan.Peers{}
}

// now is what is expected of the source by now, from an offset on, and whether
// there is one as far as is known.
func (e *entry) now(offset int64) (expected plan.Expectation, exists bool) {
	expected, exists = e.expected, true
	switch src := e.source.(type) {
	case peerSource:
		estimate := src.estimate()
		expected, exists = estimate.Expected(), estimate.Providers > 0
	case upstreamSource:
		expected = src.from(expected, offset)
	}
	if e.known > 0 {
		expected.Rate = min(cmp.Or(expected.Rate, e.known), e.known)
	}
	return expected, exists
}
