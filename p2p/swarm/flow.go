package swarm

import (
	"cmp"
	"time"
)

// How much is asked of a provider ahead of what has come: what its line holds at
// the rate that was measured, twice over, and what comes in flowSlack beside.
// Where the line is not full yet the rate is what was asked for in one round
// trip, so that the next measure allows twice as much and more; where it is full
// the rate stays, and with it what waits at the provider. docs/swarm.md has the
// sources.
const (
	flowGain  = 2
	flowSlack = 50 * time.Millisecond
	// firstFlow is for a provider of whom nothing is known, in bytes. One that has
	// delivered before may begin with as much as maxFirst.
	firstFlow = 256 << 10
	maxFirst  = 1 << 20
	// minFlow and maxFlow bound it, in bytes: a chunk of the usual length, and
	// half of the usual window.
	minFlow = 64 << 10
	maxFlow = 16 << 20
	// leastSample is the least time that a rate is measured over, beside a round
	// trip: what is shorter measures buffers.
	leastSample = 10 * time.Millisecond
	// rateWeight is the weight of one more measurement among those before.
	rateWeight = 0.5
	// A provider that owes something and says nothing for stallRounds round trips
	// has stalled, within bounds: TCP repeats what was lost after 200 ms and a
	// round trip. Of a slow line nothing is heard until a frame of the muxer has come
	// as a whole; stallFrames may come late.
	stallRounds = 4
	stallFrames = 2
	minStall    = 500 * time.Millisecond
	maxStall    = 4 * time.Second
	// frameSize is the longest frame of yamux, in bytes.
	frameSize = 64 << 10
)

// flow is what was measured of one provider.
type flow struct {
	// usual is the rate of earlier NARs, until there is one of this.
	usual float64
	// rate is in bytes a second, rtt the least round trip seen. 0 is not known.
	rate float64
	rtt  time.Duration

	// got came since the sample under way began; zero where none is.
	began time.Time
	got   int64
	// paused is since when nothing is awaited; zero where something is.
	paused time.Time
}

// trip takes note of a round trip.
func (f *flow) trip(d time.Duration) {
	if d > 0 && (f.rtt == 0 || d < f.rtt) {
		f.rtt = d
	}
}

// pause says that nothing is awaited any more: the time until the next request,
// when resume is called, does not count.
func (f *flow) pause(now time.Time) { f.paused = now }

func (f *flow) resume(now time.Time) {
	if !f.paused.IsZero() && !f.began.IsZero() {
		f.began = f.began.Add(now.Sub(f.paused))
	}
	f.paused = time.Time{}
}

// arrived takes note of n bytes.
func (f *flow) arrived(now time.Time, n int64) {
	if f.began.IsZero() {
		// What came with the first is of the time before.
		f.began, f.got = now, 0
		return
	}
	f.got += n
	took := now.Sub(f.began)
	if took < max(leastSample, f.rtt) {
		return
	}
	sample := float64(f.got) / took.Seconds()
	if f.rate == 0 {
		f.rate = sample
	} else {
		f.rate += rateWeight * (sample - f.rate)
	}
	f.began, f.got = now, 0
}

// target is how many bytes to have asked for and not got.
func (f *flow) target() int64 {
	ahead := flowGain*f.rtt + flowSlack
	if f.rate == 0 {
		return min(max(int64(f.usual*ahead.Seconds()), firstFlow), maxFirst)
	}
	return min(max(int64(f.rate*ahead.Seconds()), minFlow), maxFlow)
}

// needs is how long it takes for so many bytes to come, if nothing is before
// them; ok is false where that is not known.
func (f *flow) needs(bytes int64) (d time.Duration, ok bool) {
	if f.rate == 0 {
		return 0, false
	}
	return time.Duration(float64(bytes) / f.rate * float64(time.Second)), true
}

// patience is how long a silence may last.
func (f *flow) patience() time.Duration {
	patience := max(stallRounds*f.rtt, minStall)
	if rate := cmp.Or(f.rate, f.usual); rate > 0 {
		patience += time.Duration(stallFrames * frameSize / rate * float64(time.Second))
	}
	return min(patience, maxStall)
}
