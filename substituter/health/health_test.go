package health_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/substituter/health"
)

// admit checks what Admit says.
func admit(t *testing.T, tracker *health.Tracker, want health.Admission) {
	t.Helper()
	if got := tracker.Admit(); got != want {
		t.Errorf("Admit() = %v, want %v", got, want)
	}
}

// rest is how long the tracker leaves the cache alone.
func rest(tracker *health.Tracker) time.Duration { return time.Until(tracker.State().Until) }

func TestNothingIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := new(health.Tracker)
		if diff := cmp.Diff(health.State{}, tracker.State()); diff != "" {
			t.Error(diff)
		}
		admit(t, tracker, health.Admitted)
		if got := tracker.State().HedgeDelay(); got != 300*time.Millisecond {
			t.Errorf("hedge after %v", got)
		}
	})
}

// The next cache is asked after what nine of ten answers took, within bounds.
func TestHedgeDelay(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers func(*health.Tracker)
		want    time.Duration
		slow    bool
	}{
		{"quick", func(h *health.Tracker) { answers(h, 100, time.Millisecond) }, 100 * time.Millisecond, false},
		{"one in ten is late", func(h *health.Tracker) {
			answers(h, 10, 5*time.Second)
			answers(h, 90, 200*time.Millisecond)
		}, 200 * time.Millisecond, false},
		{"one in five is late", func(h *health.Tracker) {
			answers(h, 50, 200*time.Millisecond)
			answers(h, 14, 400*time.Millisecond)
		}, 400 * time.Millisecond, false},
		{"slow", func(h *health.Tracker) { answers(h, 1, 3*time.Second) }, 500 * time.Millisecond, true},
		{"slow once, and forgotten", func(h *health.Tracker) {
			answers(h, 64, 3*time.Second)
			answers(h, 64, 150*time.Millisecond)
		}, 150 * time.Millisecond, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tracker := new(health.Tracker)
				tt.answers(tracker)
				if got := tracker.State(); got.HedgeDelay() != tt.want || got.Slow() != tt.slow {
					t.Errorf("hedge after %v, slow %v; want %v, %v", got.HedgeDelay(), got.Slow(), tt.want, tt.slow)
				}
			})
		})
	}
}

func answers(tracker *health.Tracker, n int, took time.Duration) {
	for range n {
		tracker.Answered(took)
	}
}

// Old samples count for less, the older the less.
func TestAveragesForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := new(health.Tracker)
		answers(tracker, 100, time.Second)
		if got := tracker.State().Latency; got != time.Second {
			t.Fatalf("latency %v", got)
		}
		tracker.Answered(0)
		if got := tracker.State().Latency; got < 890*time.Millisecond || got > 910*time.Millisecond {
			t.Errorf("after one quick answer among many: %v", got)
		}
		time.Sleep(10 * time.Minute)
		tracker.Answered(0)
		if got := tracker.State().Latency; got > time.Millisecond {
			t.Errorf("after a quick answer much later: %v", got)
		}
		tracker.Delivered(10<<20, 2*time.Second)
		if got := tracker.State().Throughput; got != 5<<20 {
			t.Errorf("throughput %v", got)
		}
		tracker.Delivered(1<<20, 0)
		if got := tracker.State().Throughput; got > 20<<20 {
			t.Errorf("throughput after what came at once: %v", got)
		}
	})
}

// One question that fails is no outage; three in a row are.
func TestFailuresInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := new(health.Tracker)
		fail := func() { tracker.Failed(time.Now(), "status 500") }
		fail()
		fail()
		tracker.Works()
		fail()
		fail()
		admit(t, tracker, health.Admitted)
		if got := tracker.State(); got.Open || got.Problem != "status 500" {
			t.Errorf("%+v", got)
		}
		fail()
		admit(t, tracker, health.Refused)
		if got := tracker.State(); !got.Open || got.Problem != "status 500" {
			t.Errorf("%+v", got)
		}
	})
}

// While the cache is down there is one trial now and then, less and less often.
func TestTrials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := new(health.Tracker)
		want := 500 * time.Millisecond
		asked := time.Now()
		for range 8 {
			for range 25 { // asked together
				tracker.Down(asked, "no route")
			}
			if got := rest(tracker); got < want*3/4 || got > want*5/4 {
				t.Errorf("left alone for %v, want about %v", got, want)
			}
			time.Sleep(rest(tracker) - 1)
			admit(t, tracker, health.Refused)
			time.Sleep(time.Nanosecond)
			asked = time.Now()
			admit(t, tracker, health.Trial)
			admit(t, tracker, health.Refused)
			want = min(2*want, 15*time.Second)
			time.Sleep(time.Second)
		}
		tracker.Answered(time.Second)
		admit(t, tracker, health.Admitted)
		admit(t, tracker, health.Admitted)
		tracker.Down(time.Now(), "no route")
		if got := rest(tracker); got > time.Second {
			t.Errorf("at the next outage left alone for %v", got)
		}
	})
}

// Whoever is on trial may forget to say how it went.
func TestTrialWithoutOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := new(health.Tracker)
		tracker.Down(time.Now(), "no route")
		for range 3 {
			time.Sleep(rest(tracker))
			admit(t, tracker, health.Trial)
		}
	})
}

// A question asked before the outage says nothing about how the trial went.
func TestLateFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := new(health.Tracker)
		before := time.Now()
		time.Sleep(time.Second)
		tracker.Down(time.Now(), "no route")
		time.Sleep(rest(tracker))
		admit(t, tracker, health.Trial)
		until := tracker.State().Until
		time.Sleep(time.Second)
		tracker.Down(before, "no route")
		tracker.Failed(before, "reset")
		if got := tracker.State().Until; !got.Equal(until) {
			t.Errorf("until %v, was %v", got, until)
		}
	})
}

func TestSentAway(t *testing.T) {
	for wait, want := range map[time.Duration]time.Duration{
		2 * time.Minute:  2 * time.Minute,
		1000 * time.Hour: 10 * time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			tracker := new(health.Tracker)
			tracker.SentAway(time.Now(), "status 429", wait)
			if got := tracker.State(); rest(tracker) != want || !got.Obeying {
				t.Errorf("%v: left alone for %v, %+v", wait, rest(tracker), got)
			}
			// Another answer prolongs it, none makes it shorter.
			time.Sleep(want / 2)
			tracker.SentAway(time.Now(), "status 429", want)
			tracker.SentAway(time.Now(), "status 429", time.Second)
			tracker.Down(time.Now(), "reset")
			if got := rest(tracker); got != want {
				t.Errorf("%v: then left alone for %v", wait, got)
			}
			time.Sleep(want)
			admit(t, tracker, health.Trial)
			if tracker.State().Obeying {
				t.Error("the cache is asked and obeyed")
			}
		})
	}
}

// An upstream that is slow is not down, if others get their answers.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := new(health.Tracker)
		asked := time.Now()
		time.Sleep(2 * time.Second)
		tracker.Answered(3 * time.Second)
		time.Sleep(time.Second)
		if tracker.Silent(asked, "no answer in 3s") || tracker.State().Open {
			t.Error("an upstream that answered another question is held for dead")
		}
		asked = time.Now()
		time.Sleep(2 * time.Second)
		if !tracker.Silent(asked, "no answer in 2s") || !tracker.State().Open {
			t.Error("an upstream that says nothing is not held for dead")
		}
		if tracker.Silent(asked, "no answer in 5s") {
			t.Error("what is held for dead already is so anew")
		}
		if got := tracker.State().Problem; got != "no answer in 2s" {
			t.Errorf("problem %q", got)
		}
	})
}

func TestSaveAndRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := new(health.Tracker)
		for i := range 100 {
			tracker.Answered(time.Duration(100-i) * time.Millisecond)
		}
		tracker.Delivered(1<<20, time.Second)
		tracker.SentAway(time.Now(), "status 429", time.Minute)
		data, err := tracker.Save()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		restored := new(health.Tracker)
		if err := restored.Restore(data); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tracker.State(), restored.State()); diff != "" {
			t.Error(diff)
		}
		// The window goes on where it was.
		for _, h := range []*health.Tracker{tracker, restored} {
			answers(h, 20, 0)
		}
		if diff := cmp.Diff(tracker.State(), restored.State()); diff != "" {
			t.Error(diff)
		}
	})
}

// What is not sane is not taken: the clock was set back, or the disk is bad.
func TestRestoreRefuses(t *testing.T) {
	const future = `"2222-01-01T00:00:00Z"`
	for _, data := range []string{
		``, `{`, `[]`,
		`{"latency": {"value": -1}}`,
		`{"latency": {"value": 1e300}}`,
		`{"throughput": {"value": 1, "at": ` + future + `}}`,
		`{"heard": ` + future + `}`,
		`{"until": ` + future + `}`,
		`{"recent": [-1]}`,
		`{"recent": [1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5]}`,
		`{"trips": -1}`,
	} {
		tracker := new(health.Tracker)
		if err := tracker.Restore([]byte(data)); err == nil {
			t.Errorf("%s was taken", data)
		}
		if diff := cmp.Diff(health.State{}, tracker.State()); diff != "" {
			t.Errorf("%s: %s", data, diff)
		}
	}
	if err := new(health.Tracker).Restore([]byte(`{}`)); err != nil {
		t.Error(err)
	}
}

// That NARs hang says nothing of narinfos, and the other way round.
func TestNARsRestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := new(health.Tracker)
		tracker.Began(20 * time.Millisecond)
		tracker.Delivered(1<<20, time.Second)
		tracker.HungNAR(time.Now(), "NAR: no answer in 10s")
		tracker.Answered(time.Millisecond) // for a narinfo
		got := tracker.State()
		if got.Open || !got.NARs.Open || got.NARs.Problem != "NAR: no answer in 10s" || got.FirstByte != 20*time.Millisecond {
			t.Errorf("%+v", got)
		}
		admit(t, tracker, health.Admitted)
		if a := tracker.AdmitNAR(); a != health.Refused {
			t.Errorf("a NAR is %v", a)
		}
		if rest := time.Until(got.NARs.Until); rest < 3*time.Second || rest > 7*time.Second {
			t.Errorf("left alone for %v", rest)
		}
		time.Sleep(time.Until(got.NARs.Until))
		if a, b := tracker.AdmitNAR(), tracker.AdmitNAR(); a != health.Trial || b != health.Refused {
			t.Errorf("then NARs are %v and %v", a, b)
		}
		tracker.BrokeOff(time.Now(), "a", "NAR: reset") // one is enough for a trial
		if a := tracker.AdmitNAR(); a != health.Refused {
			t.Errorf("after the trial: %v", a)
		}
		tracker.Delivered(0, 0)
		if a := tracker.AdmitNAR(); a != health.Admitted || tracker.State().NARs != (health.Rest{}) {
			t.Errorf("after a NAR that came: %v, %+v", a, tracker.State().NARs)
		}
		for range 10 {
			tracker.FailedNAR(time.Now(), "a", "NAR: status 500")
		}
		if a := tracker.AdmitNAR(); a != health.Admitted {
			t.Errorf("after one NAR that failed ten times: %v", a)
		}
		tracker.BrokeOff(time.Now(), "b", "NAR: reset")
		tracker.FailedNAR(time.Now(), "c", "NAR: status 500")
		data, err := tracker.Save()
		if err != nil {
			t.Fatal(err)
		}
		restored := new(health.Tracker)
		if err := restored.Restore(data); err != nil || restored.AdmitNAR() != health.Refused {
			t.Errorf("restored: %v, %+v", err, restored.State())
		}
	})
}

// A clock that is set after a restart neither prolongs a rest nor makes an old answer a
// new one: what was read back goes by the clock that nobody sets.
func TestWhatWasKeptGoesByTheOtherClock(t *testing.T) {
	tracker := new(health.Tracker)
	tracker.Answered(time.Millisecond)
	tracker.SentAway(time.Now(), "503", time.Minute)
	tracker.HungNAR(time.Now(), "NAR: no answer")
	data, err := tracker.Save()
	if err != nil {
		t.Fatal(err)
	}
	restored := new(health.Tracker)
	if err := restored.Restore(data); err != nil {
		t.Fatal(err)
	}
	got := restored.State()
	for name, at := range map[string]time.Time{"heard": got.Heard, "until": got.Until, "NARs' until": got.NARs.Until} {
		if !strings.Contains(at.String(), " m=") {
			t.Errorf("%s: %s goes by the clock on the wall", name, at)
		}
	}
}
