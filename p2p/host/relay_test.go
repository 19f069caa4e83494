package host

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// AutoRelay gets candidates as soon as there are enough, or those that there are once
// it would ask again.
func TestRelayCandidatesAreAwaited(t *testing.T) {
	for name, tt := range map[string]struct {
		// known says how many peers are known after a time.
		known  func(time.Duration) int
		num    int
		want   int
		within time.Duration
	}{
		"many at once":   {func(time.Duration) int { return 50 }, 20, 20, 0},
		"many by and by": {func(d time.Duration) int { return int(d / time.Second) }, 20, enoughCandidates + 1, 4 * time.Second},
		"few":            {func(time.Duration) int { return 2 }, 20, 2, relayInterval},
		"none":           {func(time.Duration) int { return 0 }, 20, 0, relayInterval},
		"more than may":  {func(time.Duration) int { return 500 }, 400, maxRelayCandidates, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				source := relayCandidates(func(int) []peer.AddrInfo {
					infos := make([]peer.AddrInfo, tt.known(time.Since(begin)))
					for i := range infos {
						infos[i].ID = peer.ID(fmt.Sprint(i))
					}
					return infos
				})
				got := 0
				for range source(t.Context(), tt.num) {
					got++
				}
				if took := time.Since(begin); got != tt.want || took != tt.within {
					t.Errorf("%d candidates after %v, want %d after %v", got, took, tt.want, tt.within)
				}
			})
		})
	}
}

// A node that ends waits for no candidates.
func TestRelayCandidatesEndWithTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		found := relayCandidates(func(int) []peer.AddrInfo { return nil })(ctx, 20)
		cancel()
		if _, open := <-found; open || time.Since(begin) > 0 {
			t.Errorf("after %v the candidates have come to no end", time.Since(begin))
		}
	})
}
