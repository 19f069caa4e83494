package health

import "time"

const (
	// narRest is how long a cache is asked for no NAR after the last has hung or
	// several have failed; it doubles with each trial that fails, up to maxNARRest.
	// Longer than for narinfos: a trial is somebody's NAR, and what is refused
	// meanwhile Nix takes from its next substituter at once, and asks again for
	// the next path.
	narRest    = 5 * time.Second
	maxNARRest = 2 * time.Minute
)

// AdmitNAR asks whether the cache may be asked for a NAR now. Whoever is
// admitted tells how it went, by Began or one of the failures.
func (t *Tracker) AdmitNAR() Admission {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.nars.admit(time.Now())
}

// Began says that the first byte of a NAR has come, and how long it took; 0 if
// that says nothing of the next NAR.
func (t *Tracker) Began(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if took > 0 {
		t.firstByte.add(now, took.Seconds())
	}
	t.lives(now)
}

// Delivered says that so many bytes of a NAR came in the time spent waiting
// for them, and that nothing was wrong with it. Where there were too few to
// learn the rate from, bytes is 0.
func (t *Tracker) Delivered(bytes int64, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if bytes > 0 {
		t.throughput.add(now, float64(bytes)/max(took, leastDelivery).Seconds())
	}
	t.narProblem, t.broken = "", ""
	t.nars.close()
	t.lives(now)
}

// BrokeOff says that the NAR of this name, asked for at this time, did not come
// to its end.
func (t *Tracker) BrokeOff(asked time.Time, nar, problem string) {
	t.failNAR(problem, func(now time.Time) {
		t.throughput.add(now, 0)
		t.strikeNAR(now, asked, nar)
	})
}

// FailedNAR says that the NAR of this name, asked for at this time, did not even
// begin.
func (t *Tracker) FailedNAR(asked time.Time, nar, problem string) {
	t.failNAR(problem, func(now time.Time) { t.strikeNAR(now, asked, nar) })
}

// strikeNAR counts a failure. One file that is broken for good is no outage,
// however often it is asked for.
func (t *Tracker) strikeNAR(now, asked time.Time, nar string) {
	if nar != t.broken || t.nars.open() {
		t.nars.strike(now, asked)
	}
	t.broken = nar
}

// HungNAR says that nothing came of the NAR asked for at this time for so long
// that the next shall not wait for it.
func (t *Tracker) HungNAR(asked time.Time, problem string) {
	t.failNAR(problem, func(now time.Time) { t.nars.trip(now, asked) })
}

func (t *Tracker) failNAR(problem string, how func(now time.Time)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nars.first, t.nars.most = narRest, maxNARRest
	t.narProblem = bounded(problem)
	how(time.Now())
}
