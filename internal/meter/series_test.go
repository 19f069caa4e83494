package meter

import (
	"testing"
	"time"
)

// Where the clock was years ahead, and then set right, the next seconds are seen like
// any others; what was counted at a time to come is not, nor is it taken for another.
func TestAClockThatIsSetBack(t *testing.T) {
	s := newSeries(time.Second, 300)
	now := time.Unix(1e9, 0)
	s.add(now, Amounts{Peer: 1})
	s.add(now.AddDate(10, 0, 0), Amounts{Peer: 2})
	s.add(now.Add(2*time.Second), Amounts{Peer: 4})
	for name, since := range map[string]time.Time{"of before": now.Add(time.Second), "of a time to come": now.AddDate(10, 0, 0)} {
		got := s.since(since, now.Add(2*time.Second))
		if n := len(got.Amounts); n == 0 || got.Amounts[n-1] != (Amounts{Peer: 4}) || got.Start+int64(n) != now.Unix()+3 {
			t.Errorf("since a second %s: %+v", name, got)
		}
	}
	total := Amounts{}
	for _, a := range s.all(now.Add(2 * time.Second)).Amounts {
		total = total.Plus(a)
	}
	if total.Peer > 5 {
		t.Errorf("%d bytes are seen, 5 were not of a time to come", total.Peer)
	}

	// A little is nothing to forget anything for.
	s.add(now, Amounts{Peer: 8})
	if got := s.since(now.Add(2*time.Second), now.Add(2*time.Second)); got.Amounts[0] != (Amounts{Peer: 12}) {
		t.Errorf("two seconds back: %+v", got)
	}
}
