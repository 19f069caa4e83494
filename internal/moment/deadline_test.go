package moment_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/moment"
)

// What was kept is compared with what is new by the clock that nobody sets, and is as
// long ago as it is.
func TestRecalled(t *testing.T) {
	kept := time.Now().Add(-time.Hour).UTC()
	got := moment.Recalled(kept)
	if !strings.Contains(got.String(), " m=") || got.Sub(kept).Abs() > time.Second {
		t.Errorf("Recalled(%v) = %v", kept, got)
	}
	if got := moment.Recalled(time.Time{}); !got.IsZero() {
		t.Errorf("no time is recalled as %v", got)
	}
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		d := moment.In(time.Hour)
		if d.Over() || d.Left() != time.Hour || !d.Time().Equal(begin.Add(time.Hour)) {
			t.Errorf("a deadline in an hour is in %v, at %v", d.Left(), d.Time())
		}
		time.Sleep(time.Hour - time.Nanosecond)
		if d.Over() || d.Left() != 1 || !d.Time().Equal(begin.Add(time.Hour)) {
			t.Errorf("an instant before it is in %v, at %v", d.Left(), d.Time())
		}
		time.Sleep(time.Nanosecond)
		if !d.Over() {
			t.Error("it does not come")
		}
		var none moment.Deadline
		if none.Over() || !none.IsZero() || !none.Time().IsZero() || none.Keep() != (moment.Kept{}) {
			t.Error("there is a deadline where there is none")
		}
	})
}

// A deadline on the disk is no further away after a restart than it was, whatever the
// clock shows; and what was kept without its length is as far as it says.
func TestDeadlineThatWasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		d := moment.In(time.Hour)
		time.Sleep(20 * time.Minute)
		text, err := json.Marshal(d.Keep())
		if err != nil {
			t.Fatal(err)
		}
		var kept moment.Kept
		if err := json.Unmarshal(text, &kept); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name string
			kept moment.Kept
			want time.Duration
		}{
			{"as it was", kept, 40 * time.Minute},
			{"by a clock ten years ahead", moment.Kept{Until: kept.Until.AddDate(10, 0, 0), Seconds: kept.Seconds}, time.Hour},
			{"by a clock of 1970", moment.Kept{Until: time.Unix(3600, 0), Seconds: kept.Seconds}, time.Unix(3600, 0).Sub(now.Add(20 * time.Minute))},
			{"of an earlier version", moment.Kept{Until: now.Add(3 * time.Hour)}, 160 * time.Minute},
		} {
			if got := tt.kept.Recall().Left(); got != tt.want {
				t.Errorf("%s: in %v, want %v", tt.name, got, tt.want)
			}
		}
		if again := kept.Recall().Keep(); again.Seconds != 3600 {
			t.Errorf("after a second restart it has %d seconds, want 3600", again.Seconds)
		}
	})
}
