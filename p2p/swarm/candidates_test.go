package swarm

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestCandidates has providers that take this long to be dialled, or cannot be
// reached at all where it is negative.
func TestCandidates(t *testing.T) {
	const never = time.Hour
	tests := []struct {
		name  string
		takes []time.Duration
		// wants is how many candidates are asked for, one after the other.
		wants int
		// got are the providers given, by their place, after how long the last was
		// there, and dialled how many were dialled by then.
		got     []int
		after   time.Duration
		dialled int
	}{
		{name: "none", wants: 1},
		{name: "one is enough", takes: []time.Duration{0, 0, 0}, wants: 1, got: []int{0}, dialled: 1},
		{name: "in order", takes: []time.Duration{0, 0, 0}, wants: 3, got: []int{0, 1, 2}, dialled: 3},
		{name: "a slow one is waited for", takes: []time.Duration{patience / 2, 0}, wants: 1, got: []int{0}, after: patience / 2, dialled: 1},
		{name: "a very slow one is overtaken", takes: []time.Duration{2 * patience, 0}, wants: 1, got: []int{1}, after: patience, dialled: 2},
		{name: "and used later", takes: []time.Duration{2 * patience, 0}, wants: 2, got: []int{1, 0}, after: 2 * patience, dialled: 2},
		{name: "unreachable ones are passed over", takes: []time.Duration{-1, -1, 0}, wants: 1, got: []int{2}, dialled: 3},
		{
			name: "not too many at once", takes: append(slices.Repeat([]time.Duration{never}, maxDials), 0), wants: 1,
			got: []int{maxDials}, after: never, dialled: maxDials + 1,
		},
		{name: "fewer than wanted", takes: []time.Duration{0, -1}, wants: 2, got: []int{0}, dialled: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var dialled atomic.Int32
				c := newCandidates(func(ctx context.Context, p peer.AddrInfo) error {
					dialled.Add(1)
					d := tt.takes[p.ID[0]]
					if d < 0 {
						return errors.New("not there")
					}
					select {
					case <-time.After(d):
					case <-ctx.Done():
					}
					if d == never {
						return errors.New("timed out")
					}
					return nil
				}, func(peer.AddrInfo) (netip.Prefix, bool) { return netip.Prefix{}, false })
				var providers []peer.AddrInfo
				for i := range tt.takes {
					providers = append(providers, peer.AddrInfo{ID: peer.ID([]byte{byte(i)})})
				}
				ctx, cancel := context.WithCancel(t.Context())
				go c.gather(ctx, slices.Values(providers))
				start := time.Now()
				var got []int
				for i := range tt.wants {
					if p, ok := c.at(ctx, i); ok {
						got = append(got, int(p.ID[0]))
					}
				}
				synctest.Wait()
				if diff := cmp.Diff(tt.got, got); diff != "" {
					t.Errorf("candidates (-want +got)\n%s", diff)
				}
				if took := time.Since(start); took != tt.after || int(dialled.Load()) != tt.dialled {
					t.Errorf("took %s and %d dials, want %s and %d", took, dialled.Load(), tt.after, tt.dialled)
				}
				cancel()
			})
		})
	}
}
