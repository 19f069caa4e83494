// Package moment has points in time that stay where they are when the clock is set.
//
// As seconds since 1970 they would move with it: an hour of silence would not be
// noticed, or one that never was would be. So would a time.Time that was kept on the
// disk, or was rounded, or is of UTC: these have lost what the other clock showed.
package moment

import (
	"sync/atomic"
	"time"
)

// epoch is what moments are counted from, by the clock that only goes on.
var epoch = time.Now()

// Recalled returns a time that was kept on the disk as one that time.Now might have
// returned then: it stays as long ago as it is now.
func Recalled(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	now := time.Now()
	return now.Add(t.Sub(now))
}

// Shown returns a time of this process as the clock tells it that is set now: where
// it was set meanwhile, as long ago as it is.
func Shown(t time.Time) time.Time {
	now := time.Now()
	shown := now.Add(t.Sub(now)).Round(0)
	if t.IsZero() || shown.Sub(t.Round(0)).Abs() < time.Second {
		return t // The clock goes a little faster or slower than the other.
	}
	return shown.Round(time.Second)
}

// Moment is a point in time, or none, that one may set while others read it. The zero
// value is none.
type Moment struct {
	after atomic.Int64 // in nanoseconds
}

// Set makes it a time that time.Now has returned.
func (m *Moment) Set(t time.Time) { m.after.Store(int64(t.Sub(epoch))) }

// Clear makes it none.
func (m *Moment) Clear() { m.after.Store(0) }

// Time returns the time that was set, good for comparing with others of this
// process, or the zero time.
func (m *Moment) Time() time.Time {
	after := m.after.Load()
	if after == 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(after))
}
