package health

import (
	"math/rand/v2"
	"time"
)

const (
	// maxFailures in a row open a breaker. One corrupt file is not an outage.
	maxFailures = 3
	// firstRest is how long a cache is left alone that has just failed; it
	// doubles with each trial that fails, up to maxRest. Short: what is said to
	// be absent meanwhile Nix takes for absent for an hour.
	firstRest = 500 * time.Millisecond
	maxRest   = 15 * time.Second
	// maxObeyed bounds how long a cache is left alone because it wants that.
	maxObeyed = 10 * time.Minute
	// trialTime is how long the outcome of a trial is waited for before there
	// may be another.
	trialTime = 10 * time.Second
)

// breaker is a circuit breaker. It is closed, or open until some time, or on
// trial: open, while one question is under way.
//
// It is our own because none to be had lets an answer say how long it stays
// open, and prolong that, nor can be put to the disk while open.
type breaker struct {
	first, most time.Duration // how long it stays open; 0 means firstRest, maxRest

	failures int       // in a row, while closed
	trips    int       // in a row, without an answer between
	until    time.Time // zero if closed
	obeying  bool      // open because the cache wants that
	trial    time.Time // when the trial began, zero if there is none
}

func (b *breaker) open() bool { return !b.until.IsZero() }

func (b *breaker) close() { *b = breaker{first: b.first, most: b.most} }

func (b *breaker) admit(now time.Time) Admission {
	switch {
	case !b.open():
		return Admitted
	case now.Before(b.until):
		return Refused
	}
	b.until, b.trial, b.obeying = now.Add(trialTime), now, false
	return Trial
}

// news reports whether the failure of a question asked at this time says
// anything: not if it was under way when the breaker opened or the trial began.
func (b *breaker) news(asked time.Time) bool {
	return !b.open() || !b.trial.IsZero() && !asked.Before(b.trial)
}

// strike counts a failure, which opens the breaker if it is one too many.
func (b *breaker) strike(now, asked time.Time) {
	if b.failures++; b.failures >= maxFailures || b.open() {
		b.trip(now, asked)
	}
}

// trip opens the breaker.
func (b *breaker) trip(now, asked time.Time) {
	if !b.news(asked) {
		return
	}
	first, most := firstRest, maxRest
	if b.first > 0 {
		first, most = b.first, b.most
	}
	rest := min(first<<min(b.trips, 10), most)
	// A quarter more or less, so that many nodes do not come back at once.
	rest += time.Duration((rand.Float64() - 0.5) / 2 * float64(rest))
	*b = breaker{first: b.first, most: b.most, trips: b.trips + 1, until: now.Add(rest)}
}

// obey opens the breaker for as long as the cache wants, or as it would be open
// anyway.
func (b *breaker) obey(now, asked time.Time, wait time.Duration) {
	b.trip(now, asked)
	if until := now.Add(min(wait, maxObeyed)); until.After(b.until) {
		b.until, b.trial, b.obeying = until, time.Time{}, true
	}
}
