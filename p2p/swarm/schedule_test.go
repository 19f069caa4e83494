package swarm

import (
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
)

// TestTake has a window of which everything was asked of one provider, and
// another that looks for something to do.
func TestTake(t *testing.T) {
	const count, length = 16, 64 << 10
	var chunks []chunk.Chunk
	for i := range int64(count) {
		chunks = append(chunks, chunk.Chunk{Offset: i * length, Length: length})
	}
	tests := []struct {
		name string
		// first is the rate of the one that was asked, 0 where it is not known, and
		// silent how long it has brought nothing; second is that of the other.
		first, second float64
		silent        time.Duration
		// stalled and left say that it counts as such, and that it has gone.
		stalled, left bool
		// head says that the other is to ask for the chunk that is read next.
		head bool
	}{
		{name: "as quick", first: 5e6, second: 5e6},
		{name: "a little slower", first: 3e6, second: 5e6},
		// The first chunk takes 0.7 s, and from the other one a few milliseconds.
		{name: "much slower", first: 100e3, second: 20e6, head: true},
		{name: "slow, and so is the other", first: 100e3, second: 50e3},
		{name: "nothing known of the other", first: 100e3},
		{name: "nothing known of either"},
		{name: "nothing has come yet", second: 20e6, silent: time.Second, head: true},
		{name: "slower than it was", first: 20e6, second: 20e6, silent: time.Second, head: true},
		{name: "stalled", first: 20e6, stalled: true, head: true},
		{name: "gone", first: 20e6, left: true, head: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWindow(&memory{Budget: budget.New(0), window: 4 << 20}, Want{Size: count * length}, nil)
			w.extend(chunks, nil)
			w.confirm()
			first, second := &worker{id: "first", window: w}, &worker{id: "second", window: w}
			w.join(first)
			w.join(second)
			// A rate that lets it ask for all.
			first.flow.rate = 1e9
			for taken := 0; taken < count; {
				r := w.take(first, 0)
				if len(r.items) == 0 {
					t.Fatalf("the first was given %d chunks of %d", taken, count)
				}
				taken += len(r.items)
			}
			first.flow.rate, second.flow.rate = tt.first, tt.second
			first.moved = time.Now().Add(-tt.silent)
			first.stalled = tt.stalled
			if tt.left {
				w.leave(first)
			}
			got := w.take(second, 0).items
			if head := len(got) > 0 && got[0].index == 0; head != tt.head {
				t.Errorf("the second is to ask for %v, the first chunk: want %t", got, tt.head)
			}
		})
	}
}
