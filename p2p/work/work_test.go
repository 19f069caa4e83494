package work

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func far(p, ip string) Who {
	group, err := netip.MustParseAddr(ip).Prefix(24)
	if err != nil {
		panic(err)
	}
	return Who{Peer: peer.ID(p), Group: group}
}

// Whatever is done to get around it, there is only so much.
func TestWorkIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const second = 100 * time.Millisecond // of work in a second
		w := New(second)
		// spent charges small amounts until there is no more.
		spent := func(who Who) (total time.Duration) {
			for w.Charge(who, time.Millisecond) == 0 {
				total += time.Millisecond
			}
			return total
		}
		for _, step := range []struct {
			name string
			who  Who
			want time.Duration
		}{
			{"one peer has a quarter", far("a", "11.0.0.1"), 20 * second / 4},
			{"and nothing more", far("a", "11.0.0.1"), 0},
			{"not from elsewhere either", far("a", "11.0.9.1"), 0},
			{"two of a group have half", far("b", "11.0.0.2"), 20 * second / 4},
			{"a third has nothing", far("c", "11.0.0.3"), 0},
			{"another group", far("d", "11.0.1.1"), 20 * second / 4},
			{"and its other half", far("e", "11.0.1.2"), 20 * second / 4},
			{"all together have had all", far("f", "11.0.2.1"), 0},
			{"a neighbour has twice", Who{Peer: "g"}, 20 * second * 2},
			{"and so has another", Who{Peer: "h"}, 20 * second * 2},
			{"neighbours are bounded too", Who{Peer: "i"}, 0},
		} {
			if got := spent(step.who); got != step.want {
				t.Errorf("%s: %v, want %v", step.name, got, step.want)
			}
		}

		wait := w.Charge(far("a", "11.0.0.1"), 10*time.Millisecond)
		if want := 400 * time.Millisecond; wait != want { // at 25 ms a second
			t.Errorf("wait for %v, want %v", wait, want)
		}
		time.Sleep(wait)
		if left := w.Charge(far("a", "11.0.0.1"), 10*time.Millisecond); left != 0 {
			t.Errorf("after that wait there are %v left", left)
		}
		// What never fits costs half of what was saved up, and is done although
		// something was done just before.
		time.Sleep(time.Minute)
		w.Charge(far("a", "11.0.0.1"), time.Millisecond)
		if w.Charge(far("a", "11.0.0.1"), time.Hour) != 0 || w.Charge(far("a", "11.0.0.1"), time.Hour) == 0 {
			t.Error("work of an hour is not done, or is done twice")
		}
	})
}
