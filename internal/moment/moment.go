// Package moment has a point in time that one may set while others read it.
//
// As seconds since 1970 it would move with the clock, which may be set: an hour of
// silence would not be noticed, or one that never was would be.
package moment

import (
	"sync/atomic"
	"time"
)

// epoch is what moments are counted from, by the clock that only goes on.
var epoch = time.Now()

// Moment is a point in time, or none. The zero value is none.
type Moment struct {
	after atomic.Int64 // in nanoseconds
}

// Set makes it a time that time.Now has returned.
func (m *Moment) Set(t time.Time) { m.after.Store(int64(t.Sub(epoch))) }

// Time returns the time that was set, good for comparing with others of this
// process, or the zero time.
func (m *Moment) Time() time.Time {
	after := m.after.Load()
	if after == 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(after))
}
