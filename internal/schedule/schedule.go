// Package schedule says which limits count when, by the clock on the wall.
//
// An Entry covers some days of the week from one time of day to another, also over
// midnight: then the day is that on which it begins. It is by wall clock, so where
// the clock is put back the hour that comes twice counts twice, and one that is left
// out does not come.
package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Unset is a limit that an Entry leaves as it is.
const Unset = -1

// Limits are in bytes per second; 0 sets none.
type Limits struct {
	Upload, Download int64
}

// Entry says which limits count at some time of the week.
type Entry struct {
	Days Days
	// From and To are times of day in minutes. Where To is not later than From it
	// is one of the next day.
	From, To int
	// Limits are Unset where those count that do without a schedule.
	Limits
}

// Covers reports whether t, by the clock of its location, is in the entry.
func (e Entry) Covers(t time.Time) bool {
	minute := 60*t.Hour() + t.Minute()
	today, yesterday := e.Days.Has(t.Weekday()), e.Days.Has((t.Weekday()+6)%7)
	if e.From < e.To {
		return today && e.From <= minute && minute < e.To
	}
	return today && minute >= e.From || yesterday && minute < e.To
}

// At returns the limits that count at t: those of the first entry that covers it, and
// what that leaves unset, or where there is none, as without a schedule. Which is
// the entry's index, or -1.
func At(t time.Time, without Limits, entries []Entry) (now Limits, which int) {
	which = slices.IndexFunc(entries, func(e Entry) bool { return e.Covers(t) })
	if which < 0 {
		return without, which
	}
	now = entries[which].Limits
	if now.Upload == Unset {
		now.Upload = without.Upload
	}
	if now.Download == Unset {
		now.Download = without.Download
	}
	return now, which
}

// Until returns when other limits will count than at t; zero for never.
func Until(t time.Time, without Limits, entries []Entry) time.Time {
	if len(entries) == 0 {
		return time.Time{}
	}
	const week = 8 * 24 * 60 // minutes, and a day more for what begins at the end of it
	now, _ := At(t, without, entries)
	start := t.Truncate(time.Minute)
	for i := range week {
		later := start.Add(time.Duration(i+1) * time.Minute)
		if then, _ := At(later, without, entries); then != now {
			return later
		}
	}
	return time.Time{}
}

// Days is a set of days of the week.
type Days uint8

// EveryDay has all of them.
const EveryDay Days = 1<<7 - 1

// Has reports whether a day is in the set.
func (d Days) Has(day time.Weekday) bool { return d&(1<<day) != 0 }

// names begins where weeks do, in most places.
var names = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

func weekday(i int) time.Weekday { return time.Weekday((i + 1) % 7) }

var errDay = errors.New("is not one of " + strings.Join(names, ", ") + ", nor two of them as in mon-fri")

// ParseDays parses a day, as in "sat", or a range of days, as in "fri-mon".
func ParseDays(s string) (Days, error) {
	first, last, ranged := strings.Cut(s, "-")
	from, to := slices.Index(names, first), slices.Index(names, last)
	if !ranged {
		to = from
	}
	if from < 0 || to < 0 {
		return 0, errDay
	}
	var d Days
	for i := from; ; i = (i + 1) % len(names) {
		d |= 1 << weekday(i)
		if i == to {
			return d, nil
		}
	}
}

// String writes days as ParseDays reads them, with "+" between them.
func (d Days) String() string {
	var parts []string
	for i := 0; i < len(names); i++ {
		if !d.Has(weekday(i)) {
			continue
		}
		first := i
		for i+1 < len(names) && d.Has(weekday(i+1)) {
			i++
		}
		part := names[first]
		if i > first {
			part += "-" + names[i]
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "+")
}

// ParseTime parses a time of day, as in "08:30", in minutes. "24:00" is midnight.
func ParseTime(s string) (int, error) {
	var hour, minute int
	if n, err := fmt.Sscanf(s, "%02d:%02d", &hour, &minute); n != 2 || err != nil || FormatTime(60*hour+minute) != s ||
		hour > 24 || minute > 59 || hour == 24 && minute > 0 || hour < 0 || minute < 0 {
		return 0, errors.New("is not a time of day such as 08:30")
	}
	return (60*hour + minute) % (24 * 60), nil
}

// FormatTime is the reverse of ParseTime.
func FormatTime(minutes int) string { return fmt.Sprintf("%02d:%02d", minutes/60, minutes%60) }
