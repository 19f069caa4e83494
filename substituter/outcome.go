package substituter

import (
	"errors"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// certainty is what is known of a path. Ignorance is not absence.
type certainty string

const (
	unknown certainty = "unknown" // somebody who may have it could not be asked
	present certainty = "found"
	absent  certainty = "absent" // all upstreams say so
)

// outcome is what a search came to, and how.
type outcome struct {
	state certainty
	found *record // nil unless present
	// answers are those of the upstreams, in the order in which they were, or
	// would have been, asked.
	answers []upstreamAnswer
}

// upstreamAnswer is what one upstream said in a search.
type upstreamAnswer struct {
	upstream string // its address
	private  bool
	standing standing
	asked    time.Time     // zero if it was not
	took     time.Duration // until the answer, 0 if there was none
	err      error         // why there was none
}

// standing is what an upstream has said in one search.
type standing int

const (
	waiting     standing = iota // not asked yet
	asked                       // no answer yet
	skipped                     // left alone, since it failed before
	unreachable                 // no answer in time, or nonsense
	refused                     // it does not know us
	absentThere                 // it does not have the path
	filtered                    // it has the path, but is not to be asked for such names
	answered                    // it has a record, which is not believed, or not by itself
	found                       // its record was believed
)

func (s standing) String() string {
	return [...]string{
		"not needed", "no answer yet", "left alone", "unreachable", "refused", "absent", "filtered", "not believed", "found",
	}[s]
}

// turn is an upstream's part in a search.
type turn struct {
	ranked
	standing standing
	asked    time.Time
	took     time.Duration
	err      error
	info     *narinfo.Info // kept by a survey
	trial    bool          // it failed when last asked
	overdue  bool          // it is not waited for any more
}

func (s *Server) turns() []*turn {
	ranking := s.ranking()
	turns := make([]*turn, 0, len(ranking))
	for _, r := range ranking {
		turns = append(turns, &turn{ranked: r})
	}
	return turns
}

// isSilent reports whether the upstream is not, or not any more, to be waited
// for, and has said nothing.
func (t *turn) isSilent() bool {
	switch t.standing {
	case skipped, unreachable, refused:
		return true
	case asked:
		return t.overdue || t.trial
	default:
		return false
	}
}

// isPending reports whether the upstream's answer may still decide the search.
// One on trial is not waited for once it is overdue.
func (t *turn) isPending() bool {
	switch t.standing {
	case waiting:
		return true
	case asked:
		return !t.trial || !t.overdue
	default:
		return false
	}
}

// note notes what the upstream has said.
func (t *turn) note(a answer) {
	t.took, t.err = a.took, a.err
	switch {
	case a.err == nil:
		t.standing = answered
	case errors.Is(a.err, upstream.ErrFiltered):
		t.standing = filtered
	case errors.Is(a.err, upstream.ErrAbsent):
		t.standing = absentThere
	case t.private && upstream.Refused(a.err):
		t.standing = refused
	default:
		t.standing = unreachable
	}
}

// outcome ends a search. The path is absent if an upstream says so and no other
// might say something else if it could be asked; one that refuses us would not.
func (f *search) outcome(r *record) *outcome {
	o := &outcome{state: unknown, found: r}
	said, all := false, true
	for _, t := range f.turns {
		o.answers = append(o.answers, upstreamAnswer{t.String(), t.private, t.standing, t.asked, t.took, t.err})
		says := t.standing == absentThere || t.standing == filtered
		said = said || says
		all = all && (says || t.standing == refused)
	}
	switch {
	case r != nil:
		o.state = present
	case said && all && f.rounds == 0:
		o.state = absent
	}
	return o
}
