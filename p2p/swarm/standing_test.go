package swarm

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestStanding(t *testing.T) {
	const p, other = peer.ID("p"), peer.ID("other")
	tests := []struct {
		name   string
		does   func(*Standing)
		after  time.Duration
		usable bool
		honest bool
	}{
		{name: "unknown", does: func(*Standing) {}, usable: true},
		{name: "honest", does: func(s *Standing) { s.proved(p) }, usable: true, honest: true},
		{name: "lied", does: func(s *Standing) { s.proved(p); s.lied(p) }},
		{name: "lied an hour ago", does: func(s *Standing) { s.lied(p) }, after: time.Hour},
		{name: "lied two hours ago", does: func(s *Standing) { s.lied(p) }, after: 2 * time.Hour, usable: true},
		{name: "lied, then honest", does: func(s *Standing) { s.lied(p); s.proved(p) }, honest: true},
		{name: "wrong once", does: func(s *Standing) { s.penalise(p, penaltyWrong) }, usable: true},
		{name: "wrong twice", does: func(s *Standing) { s.penalise(p, penaltyWrong); s.penalise(p, penaltyWrong) }},
		{name: "wrong twice an hour ago", does: func(s *Standing) {
			s.penalise(p, penaltyWrong)
			s.penalise(p, penaltyWrong)
		}, after: time.Hour, usable: true},
		{name: "failed some times", does: func(s *Standing) {
			for range 5 {
				s.failed(p)
				time.Sleep(time.Minute)
			}
		}, usable: true},
		// A line that breaks takes all transfers with it, and is soon mended.
		{name: "failed often at once", does: func(s *Standing) {
			for range 100 {
				s.failed(p)
			}
		}, usable: true},
		{name: "failed again and again", does: func(s *Standing) {
			for range 10 {
				s.failed(p)
				time.Sleep(time.Minute)
			}
		}},
		{name: "failed again and again some time ago", does: func(s *Standing) {
			for s.Usable(p) {
				s.failed(p)
				time.Sleep(time.Minute)
			}
		}, after: time.Hour / 4, usable: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewStanding()
				tt.does(s)
				time.Sleep(tt.after)
				if got := s.Usable(p); got != tt.usable {
					t.Errorf("Usable() = %t, want %t", got, tt.usable)
				}
				if until := s.RestsUntil(p); until.IsZero() != tt.usable {
					t.Errorf("RestsUntil() = %v, want zero: %t", until, tt.usable)
				} else if !tt.usable {
					time.Sleep(time.Until(until) + time.Second)
					if !s.Usable(p) {
						t.Errorf("not usable after RestsUntil() = %v", until)
					}
				}
				if got := s.Honest(p); got != tt.honest {
					t.Errorf("Honest() = %t, want %t", got, tt.honest)
				}
				if !s.Usable(other) || s.Honest(other) {
					t.Error("another peer's standing changed")
				}
			})
		})
	}
}
