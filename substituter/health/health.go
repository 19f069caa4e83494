// Package health keeps what is known of how an HTTP cache is doing: how long
// its answers take, how fast its files come, and whether it is to be left alone
// for a while.
//
// An answer is whatever tells that the cache works: a file, or its word that it
// has none. What is kept survives a restart by Save and Restore; nothing in it
// matters but for speed.
package health

import (
	"sync"
	"time"
)

const (
	// hedgeMin is the least time that a cache is given before the next one is
	// asked too: enough for a new TLS connection at 30 ms.
	hedgeMin = 100 * time.Millisecond
	// hedgeDefault is for a cache of which little is known: about twice a slow
	// round trip with a new TLS connection.
	hedgeDefault = 300 * time.Millisecond
	// hedgeMax is what a cache may cost that is known to be slow.
	hedgeMax = 500 * time.Millisecond
	// leastDelivery is the least time that a file is taken to have needed: in
	// less, nothing but buffers was measured.
	leastDelivery = 10 * time.Millisecond
	// maxProblem bounds the text of a failure, in bytes.
	maxProblem = 200
)

// Tracker is what is known of one cache. It is safe for concurrent use.
type Tracker struct {
	mu         sync.Mutex
	latency    average // of answers, in seconds
	throughput average // of files, in bytes a second
	recent     window  // latencies of answers
	firstByte  average // of NARs, in seconds
	breaker    breaker
	nars       breaker   // for NARs alone
	heard      time.Time // when it last answered, or sent a file
	problem    string    // the last failure, since when it has not answered
	narProblem string    // the last failure of a NAR, since when none was delivered
	broken     string    // the name of that NAR
}

// State is what a Tracker knows. Zero values mean that nothing is known.
type State struct {
	// Latency is the average, and Usual the 90th percentile, of what it took to
	// answer of late.
	Latency, Usual time.Duration
	// Throughput is in bytes a second.
	Throughput float64
	// Heard is when there was the last answer.
	Heard time.Time
	// Open is true if the cache is left alone, or on trial, for having failed:
	// until the time Until, after which it gets another trial.
	Open  bool
	Until time.Time
	// Obeying is true if that is because the cache itself wants it.
	Obeying bool
	// Problem is the last failure, if there was no answer after it.
	Problem string
	// FirstByte is the average of what it took to the first byte of a NAR.
	FirstByte time.Duration
	// NARs is the same as the fields above for NARs, which may hang although all
	// else is answered.
	NARs Rest
}

// Rest says whether NARs are not asked for, and why.
type Rest struct {
	// Open is true if they have failed, until the time Until.
	Open    bool
	Until   time.Time
	Problem string
}

// Slow reports whether the cache usually takes longer than it is waited for
// where there is another one to ask.
func (s State) Slow() bool { return s.Usual > hedgeMax }

// HedgeDelay is how long the cache may be silent before the next one is asked
// too: what it usually takes, within bounds.
func (s State) HedgeDelay() time.Duration {
	if s.Usual == 0 {
		return hedgeDefault
	}
	return min(max(s.Usual, hedgeMin), hedgeMax)
}

// State returns what is known now.
func (t *Tracker) State() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return State{
		Latency: seconds(t.latency.Value), Usual: t.recent.percentile90(), Throughput: t.throughput.Value,
		Heard: t.heard, Problem: t.problem,
		Open: t.breaker.open(), Until: t.breaker.until, Obeying: t.breaker.obeying,
		FirstByte: seconds(t.firstByte.Value),
		NARs:      Rest{t.nars.open(), t.nars.until, t.narProblem},
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, time.Hour.Seconds()) * float64(time.Second))
}

// Admission is whether a cache may be asked.
type Admission int

const (
	// Refused means that it is left alone.
	Refused Admission = iota
	// Trial means that it has failed when last asked, and that this is the one
	// question to find out whether it still does.
	Trial
	// Admitted means that nothing speaks against it.
	Admitted
)

// Admit asks whether the cache may be asked now. Whoever is admitted tells how
// it went, by Answered or one of the failures.
func (t *Tracker) Admit() Admission {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.breaker.admit(time.Now())
}

// Answered says that the cache has answered, and how long it took.
func (t *Tracker) Answered(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.latency.add(now, took.Seconds())
	t.recent.add(took)
	t.lives(now)
}

// Works says that the cache has answered, and nothing of how quickly.
func (t *Tracker) Works() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lives(time.Now())
}

func (t *Tracker) lives(now time.Time) {
	t.heard, t.problem = now, ""
	t.breaker.close()
}

// Failed says that the question asked at this time has failed. The next may
// succeed; several in a row may not.
func (t *Tracker) Failed(asked time.Time, problem string) {
	t.fail(problem, func(now time.Time) { t.breaker.strike(now, asked) })
}

// Down says that the question asked at this time did not reach the cache.
func (t *Tracker) Down(asked time.Time, problem string) {
	t.fail(problem, func(now time.Time) { t.breaker.trip(now, asked) })
}

// SentAway says that the cache wants to be left alone for so long.
func (t *Tracker) SentAway(asked time.Time, problem string, wait time.Duration) {
	t.fail(problem, func(now time.Time) { t.breaker.obey(now, asked, wait) })
}

// Silent says that the question asked at this time is still without an answer.
// It reports whether the cache is to be left alone from now on for that: not if
// it has answered another since, for then it lives and is but slow.
func (t *Tracker) Silent(asked time.Time, problem string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	// That it took so long counts, though the answer may yet come.
	t.latency.add(now, now.Sub(asked).Seconds())
	if t.heard.After(asked) || !t.breaker.news(asked) {
		return false
	}
	t.problem = bounded(problem)
	t.breaker.trip(now, asked)
	return true
}

func (t *Tracker) fail(problem string, how func(now time.Time)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.problem = bounded(problem)
	how(time.Now())
}

func bounded(problem string) string { return problem[:min(len(problem), maxProblem)] }
