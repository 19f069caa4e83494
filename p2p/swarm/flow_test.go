package swarm

import (
	"testing"
	"time"
)

// TestFlow has a provider at the end of a line, which brings what was asked for
// in each round trip, but no more than the line carries.
func TestFlow(t *testing.T) {
	tests := []struct {
		name string
		rate float64 // of the line, in bytes a second
		rtt  time.Duration
		// within is after how many round trips the line must be full.
		within int
	}{
		{name: "50 Mbit/s, 20 ms", rate: 6.25e6, rtt: 20 * time.Millisecond, within: 2},
		{name: "1 Gbit/s, 20 ms", rate: 125e6, rtt: 20 * time.Millisecond, within: 10},
		{name: "1 Gbit/s, 100 ms", rate: 125e6, rtt: 100 * time.Millisecond, within: 12},
		{name: "1 Mbit/s, 200 ms", rate: 125e3, rtt: 200 * time.Millisecond, within: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f flow
			f.trip(tt.rtt)
			now := time.Unix(0, 0)
			product := tt.rate * tt.rtt.Seconds()
			full := 0
			for trip := 1; trip <= 50; trip++ {
				target := float64(f.target())
				if target >= product && full == 0 {
					full = trip
				}
				// What is asked for comes within the round trip, or as the line lets it.
				took := max(tt.rtt, time.Duration(target/tt.rate*float64(time.Second)))
				for range 10 {
					now = now.Add(took / 10)
					f.arrived(now, int64(target/10))
				}
			}
			if full == 0 || full > tt.within {
				t.Errorf("the line was full after %d round trips, want %d", full, tt.within)
			}
			ahead := time.Duration(float64(f.target()) / tt.rate * float64(time.Second))
			if most := 2*tt.rtt + 2*flowSlack; ahead > most && f.target() > minFlow {
				t.Errorf("%v is asked for ahead, want at most %v", ahead, most)
			}
		})
	}
}

// TestFlowPauses has a provider that is asked for little, and seldom: the time in
// between says nothing of its line.
func TestFlowPauses(t *testing.T) {
	var f flow
	f.trip(10 * time.Millisecond)
	now := time.Unix(0, 0)
	for range 20 {
		f.resume(now)
		for range 4 {
			now = now.Add(5 * time.Millisecond)
			f.arrived(now, 50_000)
		}
		f.pause(now)
		now = now.Add(time.Second)
	}
	if f.rate < 8e6 || f.rate > 12e6 {
		t.Errorf("a rate of %.0f, want about 10 MB/s", f.rate)
	}
}

// TestFlowPatience has lines on which one frame of the muxer takes long.
func TestFlowPatience(t *testing.T) {
	for _, tt := range []struct {
		name        string
		rtt         time.Duration
		rate, usual float64
		want        time.Duration
	}{
		{"nothing known", 0, 0, 0, minStall},
		{"far", 200 * time.Millisecond, 0, 0, 800 * time.Millisecond},
		{"fast", time.Millisecond, 128 << 20, 0, minStall + time.Millisecond},
		{"slow", time.Millisecond, 64 << 10, 128 << 20, minStall + 2*time.Second},
		{"slow before", time.Millisecond, 0, 64 << 10, minStall + 2*time.Second},
		{"hardly a line", time.Millisecond, 1000, 0, maxStall},
	} {
		f := flow{rtt: tt.rtt, rate: tt.rate, usual: tt.usual}
		if got := f.patience(); (got - tt.want).Abs() > time.Millisecond {
			t.Errorf("%s: patience = %v, want %v", tt.name, got, tt.want)
		}
	}
}
