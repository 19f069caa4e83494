package health

import (
	"math"
	"slices"
	"time"
)

const (
	// leastWeight is that of a sample among many: an average is about the last
	// ten of them.
	leastWeight = 0.1
	// memory is the time after which an average has forgotten two thirds. A
	// cache that once was slow is not asked first, and so is asked seldom: its
	// next answer must count for much. (The averages of libraries weigh samples
	// by their number alone.)
	memory = time.Minute
)

// average is an exponentially weighted moving average. Zero is of nothing.
type average struct {
	Value float64   `json:"value"`
	At    time.Time `json:"at"`
}

func (a *average) add(now time.Time, sample float64) {
	weight := 1.0
	if !a.At.IsZero() {
		weight = max(leastWeight, 1-math.Exp(-now.Sub(a.At).Seconds()/memory.Seconds()))
	}
	a.Value += weight * (sample - a.Value)
	a.At = now
}

// windowSize is how many latencies a window remembers: the 90th percentile of
// fewer would be that of a handful, and of many more that of another day.
const windowSize = 64

// window is the last latencies.
type window struct {
	samples []time.Duration
	next    int // the oldest, once there are windowSize
}

func (w *window) add(sample time.Duration) {
	if len(w.samples) < windowSize {
		w.samples = append(w.samples, sample)
		return
	}
	w.samples[w.next] = sample
	w.next = (w.next + 1) % windowSize
}

// percentile90 is 0 if there are no samples.
func (w *window) percentile90() time.Duration {
	if len(w.samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(w.samples))
	return sorted[(len(sorted)*9-1)/10]
}

// inOrder returns the samples, oldest first.
func (w *window) inOrder() []time.Duration {
	return slices.Concat(w.samples[w.next:], w.samples[:w.next])
}
