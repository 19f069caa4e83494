package moment_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/moment"
)

func TestMoment(t *testing.T) {
	var m moment.Moment
	if got := m.Time(); !got.IsZero() {
		t.Errorf("no moment is %v", got)
	}
	now := time.Now()
	m.Set(now)
	if got := m.Time(); got.Sub(now) != 0 {
		t.Errorf("%v was set, got %v", now, got)
	}
	// That it goes by the clock which nobody sets shows in its text alone.
	if got := m.Time().String(); !strings.Contains(got, " m=") {
		t.Errorf("%s goes by the clock on the wall", got)
	}
}
