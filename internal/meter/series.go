package meter

import (
	"slices"
	"time"
)

// Series is amounts at even distances in time.
type Series struct {
	// Start is when the first begins, in seconds since 1970, and Step how long
	// each is, in seconds.
	Start int64 `json:"start"`
	Step  int64 `json:"step"`
	// Amounts are in bytes. The last may go on.
	Amounts []Amounts `json:"amounts"`
}

// series is a ring of the last amounts. Nothing happens to it while nothing is
// added.
type series struct {
	step int64 // in seconds
	ring []Amounts
	last int64 // the number of the latest, counted in steps since 1970
}

func newSeries(step time.Duration, length int) series {
	return series{step: int64(step / time.Second), ring: make([]Amounts, length)}
}

func (s *series) at(number int64) *Amounts { return &s.ring[number%int64(len(s.ring))] }

// setBack is how much a clock may be set back, in seconds, and amounts are added to the
// latest step until it has come there again.
const setBack = 60

// advance makes the step of a time the latest. Where the clock was set back by more
// than a little what came after is forgotten: else nothing would be seen for years.
func (s *series) advance(now time.Time) {
	number := now.Unix() / s.step
	if (s.last-number)*s.step > setBack {
		for n := max(number+1, s.last-int64(len(s.ring))+1); n <= s.last; n++ {
			*s.at(n) = Amounts{}
		}
		s.last = number
	}
	for n := max(s.last+1, number-int64(len(s.ring))+1); n <= number; n++ {
		*s.at(n) = Amounts{}
	}
	s.last = max(s.last, number)
}

func (s *series) add(now time.Time, a Amounts) {
	s.advance(now)
	*s.at(s.last) = s.at(s.last).Plus(a)
}

func (s *series) all(now time.Time) Series { return s.since(time.Unix(0, 0), now) }

// since returns the steps that end after t.
func (s *series) since(t, now time.Time) Series {
	s.advance(now)
	if t.After(now) {
		t = now // which was set back
	}
	first := max(t.Unix()/s.step, s.last-int64(len(s.ring))+1)
	got := Series{Start: first * s.step, Step: s.step, Amounts: make([]Amounts, 0, max(s.last-first+1, 0))}
	for n := first; n <= s.last; n++ {
		got.Amounts = append(got.Amounts, *s.at(n))
	}
	return got
}

// Empty reports whether there was nothing.
func (s Series) Empty() bool {
	return !slices.ContainsFunc(s.Amounts, func(a Amounts) bool { return a != Amounts{} })
}
