package moment

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Deadline is the end of a time of some length, such as an hour. Unlike a time.Time
// it does not come sooner or later where the clock is set; nor is it late, as a
// timer is, where the machine has slept. The zero value is none: it never comes.
type Deadline struct {
	begun time.Time
	// booted is how long the machine had run then, its sleep included.
	booted time.Duration
	// length is from then on, and whole what it was before the last restart.
	length, whole time.Duration
}

// In returns the deadline at the end of so long from now.
func In(length time.Duration) Deadline {
	return Deadline{begun: time.Now(), booted: sinceBoot(), length: length, whole: length}
}

// IsZero reports whether there is none.
func (d Deadline) IsZero() bool { return d.begun.IsZero() }

// Left is how long it is until then, 0 or less where it has come.
func (d Deadline) Left() time.Duration {
	elapsed := time.Since(d.begun)
	if slept := sinceBoot() - d.booted - elapsed; slept > time.Second {
		elapsed += slept
	}
	return d.length - elapsed
}

// Over reports whether it has come.
func (d Deadline) Over() bool { return !d.IsZero() && d.Left() <= 0 }

// Time is what the clock will show then, if nobody sets it again, or the zero time
// where there is no deadline.
func (d Deadline) Time() time.Time {
	if d.IsZero() {
		return time.Time{}
	}
	return time.Now().Add(d.Left())
}

// Kept is a Deadline on the disk.
type Kept struct {
	Until time.Time `json:"until,omitzero"`
	// Seconds is how long it was to last; 0 where that is not known.
	Seconds int64 `json:"seconds,omitempty"`
}

// Keep returns what is to be kept of the deadline.
func (d Deadline) Keep() Kept {
	return Kept{d.Time().Round(0), int64(d.whole.Round(time.Second) / time.Second)}
}

// Recall returns the deadline that was kept. It is no further away than it ever was,
// however the clock is set now.
func (k Kept) Recall() Deadline {
	if k.Until.IsZero() {
		return Deadline{}
	}
	d := In(time.Until(k.Until))
	if k.Seconds > 0 && k.Seconds < math.MaxInt64/int64(time.Second) {
		d.whole = time.Duration(k.Seconds) * time.Second
		d.length = min(d.length, d.whole)
	}
	return d
}

// sinceBoot is how long the machine runs, its sleep included, or 0 where it does not
// tell.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(bootClock, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
