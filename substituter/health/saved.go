package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/moment"
)

// saved is a Tracker on the disk.
type saved struct {
	Latency    average `json:"latency"`
	Throughput average `json:"throughput"`
	// Recent is the window, oldest first, in nanoseconds.
	Recent  []time.Duration `json:"recent"`
	Trips   int             `json:"trips"`
	Until   time.Time       `json:"until,omitzero"`
	Obeying bool            `json:"obeying,omitempty"`
	Heard   time.Time       `json:"heard,omitzero"`
	Problem string          `json:"problem,omitempty"`

	FirstByte  average   `json:"firstByte"`
	NARTrips   int       `json:"narTrips,omitempty"`
	NARUntil   time.Time `json:"narUntil,omitzero"`
	NARProblem string    `json:"narProblem,omitempty"`
}

// Save returns what is known, for Restore.
func (t *Tracker) Save() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return json.Marshal(saved{
		Latency: t.latency, Throughput: t.throughput, Recent: t.recent.inOrder(),
		Trips: t.breaker.trips, Until: t.breaker.until, Obeying: t.breaker.obeying, Heard: t.heard, Problem: t.problem,
		FirstByte: t.firstByte, NARTrips: t.nars.trips, NARUntil: t.nars.until, NARProblem: t.narProblem,
	})
}

// Restore takes what Save returned. Of what is damaged it takes nothing.
func (t *Tracker) Restore(data []byte) error {
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("health: %w", err)
	}
	if !s.sane(time.Now()) {
		return errors.New("health: the state kept is not sane")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latency, t.throughput, t.firstByte = s.Latency.recalled(), s.Throughput.recalled(), s.FirstByte.recalled()
	t.recent = window{samples: s.Recent}
	t.breaker = breaker{trips: s.Trips, until: moment.Recalled(s.Until), obeying: s.Obeying}
	t.heard, t.problem = moment.Recalled(s.Heard), bounded(s.Problem)
	t.narProblem = bounded(s.NARProblem)
	t.nars = breaker{first: narRest, most: maxNARRest, trips: s.NARTrips, until: moment.Recalled(s.NARUntil)}
	return nil
}

func (a average) recalled() average { return average{a.Value, moment.Recalled(a.At)} }

// maxAverage is more than any average can be, and less than overflows.
const maxAverage = 1e15

// sane reports whether what was saved may be relied upon, such as if the clock
// has not been set back since.
func (s *saved) sane(now time.Time) bool {
	for _, a := range []average{s.Latency, s.Throughput, s.FirstByte} {
		if !(a.Value >= 0 && a.Value < maxAverage) || a.At.After(now) {
			return false
		}
	}
	for _, sample := range s.Recent {
		if sample < 0 {
			return false
		}
	}
	latest := now.Add(maxObeyed)
	return len(s.Recent) <= windowSize && s.Trips >= 0 && s.NARTrips >= 0 && !s.Heard.After(now) &&
		!s.Until.After(latest) && !s.NARUntil.After(latest)
}
