package swarm

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestQueue has providers that are busy for long and for a moment: who has room
// first is asked first.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		start := time.Now()
		for p, after := range map[peer.ID]time.Duration{
			"c": 50 * time.Second, "a": 0, "b": 2 * time.Second, "too late": 5 * time.Minute,
		} {
			q.postpone(peer.AddrInfo{ID: p}, after)
		}
		var got []peer.ID
		var after []time.Duration
		for len(q.postponed) > 0 {
			if p, ok := q.due(time.Now()); ok {
				got, after = append(got, p.ID), append(after, time.Since(start))
			}
			time.Sleep(minRetry)
		}
		if diff := cmp.Diff([]peer.ID{"a", "b", "c"}, got); diff != "" {
			t.Errorf("order (-want +got)\n%s", diff)
		}
		if diff := cmp.Diff([]time.Duration{minRetry, 2 * time.Second, 50 * time.Second}, after); diff != "" {
			t.Errorf("times (-want +got)\n%s", diff)
		}
	})
}
