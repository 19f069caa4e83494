package substituter

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/nar-p2p/nar-p2p/substituter/health"
)

// ranked is an upstream as it was when the order was made.
type ranked struct {
	*mirror
	health.State
}

// ranking returns the upstreams, the best first: those with the lowest
// priority; among them the quickest, where a factor of two counts; else in the
// order of the configuration.
func (s *Server) ranking() []ranked {
	upstreams := s.setup().upstreams
	all := make([]ranked, len(upstreams))
	for i, m := range upstreams {
		all[i] = ranked{m, m.health.State()}
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.slowness(), b.slowness()))
	})
	return all
}

// slowness is 0 where nothing is known, so that it becomes known.
func (r ranked) slowness() int { return bits.Len64(uint64(r.Latency / (8 * time.Millisecond))) }

// speed is 0 where nothing is known, so that what is known to be fast is asked.
// A factor of two counts.
func (r ranked) speed() int { return bits.Len64(uint64(r.Throughput)) }

// caches lists the upstreams for a NAR in the order in which they are asked:
// the one whose record it is; then by priority and by how fast their NARs come.
// Those that fail are left out where there is another, and those that do not
// want to be asked in any case.
func (s *Server) caches(rec *record) []ranked {
	all := s.ranking()
	all = slices.DeleteFunc(all, func(r ranked) bool { return r.Obeying || !r.Wants(rec.info.StorePath.Name()) })
	if slices.ContainsFunc(all, ranked.delivers) {
		all = slices.DeleteFunc(all, func(r ranked) bool { return !r.delivers() })
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), -cmp.Compare(a.speed(), b.speed()))
	})
	var first, others []ranked
	for _, r := range all {
		if r.String() == rec.upstream {
			first = append(first, r)
		} else {
			others = append(others, r)
		}
	}
	return append(first, others...)
}

// delivers reports whether the upstream works, and its NARs do.
func (r ranked) delivers() bool { return !r.Open && !r.NARs.Open }
