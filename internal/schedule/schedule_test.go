package schedule_test

import (
	"testing"
	"time"
	_ "time/tzdata" // as a machine without them has to pass, too

	"github.com/nar-p2p/nar-p2p/internal/schedule"
)

func days(t *testing.T, s string) schedule.Days {
	t.Helper()
	d, err := schedule.ParseDays(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func minutes(t *testing.T, s string) int {
	t.Helper()
	m, err := schedule.ParseTime(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		days, from, to string
		covered, not   []string
	}{
		// The 1st of June 2026 is a Monday.
		{
			"mon-fri", "08:00", "18:00",
			[]string{"2026-06-01 08:00", "2026-06-05 17:59"},
			[]string{"2026-06-01 07:59", "2026-06-05 18:00", "2026-06-06 12:00", "2026-06-07 12:00"},
		},
		{
			"fri", "22:00", "06:00",
			[]string{"2026-06-05 22:00", "2026-06-05 23:59", "2026-06-06 00:00", "2026-06-06 05:59"},
			[]string{"2026-06-05 05:59", "2026-06-05 21:59", "2026-06-06 06:00", "2026-06-06 22:00", "2026-06-07 01:00"},
		},
		{
			"sun", "22:00", "06:00",
			[]string{"2026-06-07 23:00", "2026-06-08 01:00"},
			[]string{"2026-06-07 01:00", "2026-06-08 23:00"},
		},
		{"mon", "00:00", "24:00", []string{"2026-06-01 00:00", "2026-06-01 23:59"}, []string{"2026-06-02 00:00", "2026-05-31 23:59"}},
		{"mon", "12:00", "12:00", []string{"2026-06-01 12:00", "2026-06-02 11:59"}, []string{"2026-06-01 11:59", "2026-06-02 12:00"}},
		{"fri-mon", "10:00", "11:00", []string{"2026-06-01 10:30", "2026-06-07 10:30"}, []string{"2026-06-02 10:30", "2026-06-04 10:30"}},
	} {
		e := schedule.Entry{Days: days(t, tt.days), From: minutes(t, tt.from), To: minutes(t, tt.to)}
		for want, times := range map[bool][]string{true: tt.covered, false: tt.not} {
			for _, text := range times {
				at, err := time.Parse("2006-01-02 15:04", text)
				if err != nil {
					t.Fatal(err)
				}
				if got := e.Covers(at); got != want {
					t.Errorf("%s %s-%s covers %s: %t", tt.days, tt.from, tt.to, text, got)
				}
			}
		}
	}
}

var base = schedule.Limits{Upload: 10, Download: 20}

func TestTheFirstEntryCounts(t *testing.T) {
	entries := []schedule.Entry{
		{Days: days(t, "mon"), From: 60, To: 120, Limits: schedule.Limits{Upload: 1, Download: schedule.Unset}},
		{Days: schedule.EveryDay, From: 0, To: 180, Limits: schedule.Limits{Upload: schedule.Unset, Download: 0}},
	}
	monday := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for hour, want := range []schedule.Limits{{Upload: 10, Download: 0}, {Upload: 1, Download: 20}, {Upload: 10, Download: 0}, base} {
		at := monday.Add(time.Duration(hour) * time.Hour)
		if got, _ := schedule.At(at, base, entries); got != want {
			t.Errorf("At(%v) = %v, want %v", at, got, want)
		}
		next := monday.Add(time.Duration(hour+1) * time.Hour)
		if hour == 3 {
			next = monday.Add(24 * time.Hour)
		}
		if got := schedule.Until(at.Add(10*time.Minute+time.Second), base, entries); !got.Equal(next) {
			t.Errorf("Until(%v) = %v, want %v", at, got, next)
		}
	}
	if got := schedule.Until(monday, base, nil); !got.IsZero() {
		t.Errorf("Until without a schedule = %v", got)
	}
	same := []schedule.Entry{{Days: schedule.EveryDay, From: 0, To: 60, Limits: base}}
	if got := schedule.Until(monday, base, same); !got.IsZero() {
		t.Errorf("Until where nothing changes = %v", got)
	}
}

// Where the clock is put forward an hour does not come; where it is put back, one
// comes twice.
func TestClocksThatAreChanged(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	limits := schedule.Limits{Upload: 1, Download: 1}
	night := []schedule.Entry{{Days: schedule.EveryDay, From: minutes(t, "22:00"), To: minutes(t, "06:00"), Limits: limits}}
	hour := []schedule.Entry{{Days: schedule.EveryDay, From: minutes(t, "02:00"), To: minutes(t, "03:00"), Limits: limits}}
	for _, tt := range []struct {
		name    string
		evening time.Time
		entries []schedule.Entry
		want    time.Duration // in which the entry counts
	}{
		{"a usual night", time.Date(2026, 6, 1, 20, 0, 0, 0, berlin), night, 8 * time.Hour},
		{"spring", time.Date(2026, 3, 28, 20, 0, 0, 0, berlin), night, 7 * time.Hour},
		{"autumn", time.Date(2026, 10, 24, 20, 0, 0, 0, berlin), night, 9 * time.Hour},
		{"the hour in spring", time.Date(2026, 3, 28, 20, 0, 0, 0, berlin), hour, 0},
		{"the hour in autumn", time.Date(2026, 10, 24, 20, 0, 0, 0, berlin), hour, 2 * time.Hour},
	} {
		var covered time.Duration
		for at := tt.evening; at.Before(tt.evening.Add(14 * time.Hour)); at = at.Add(time.Minute) {
			if now, _ := schedule.At(at, base, tt.entries); now == limits {
				covered += time.Minute
			}
		}
		if covered != tt.want {
			t.Errorf("%s: the entry counts for %v, want %v", tt.name, covered, tt.want)
		}
	}
}

func TestDays(t *testing.T) {
	for in, want := range map[string]string{"mon": "mon", "mon-fri": "mon-fri", "sat-sun": "sat-sun", "fri-mon": "mon+fri-sun", "mon-sun": "mon-sun"} {
		if got := days(t, in).String(); got != want {
			t.Errorf("ParseDays(%q) = %s, want %s", in, got, want)
		}
	}
	for _, wrong := range []string{"", "monday", "mon-", "-fri", "mon-fri-sun", "Mon"} {
		if _, err := schedule.ParseDays(wrong); err == nil {
			t.Errorf("ParseDays(%q) succeeds", wrong)
		}
	}
}

func TestTimes(t *testing.T) {
	for in, want := range map[string]int{"00:00": 0, "08:30": 510, "23:59": 1439, "24:00": 0} {
		if got, err := schedule.ParseTime(in); err != nil || got != want {
			t.Errorf("ParseTime(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, wrong := range []string{"", "8:30", "08:60", "24:01", "25:00", "-1:00", "08:30x", "0830", "08:3"} {
		if got, err := schedule.ParseTime(wrong); err == nil {
			t.Errorf("ParseTime(%q) = %d", wrong, got)
		}
	}
}
