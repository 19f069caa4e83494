package exchange

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// send sends pieces over streams of a flow until ctx ends, and counts them in
// sent.
func send(ctx context.Context, u *uplink, f flow, streams, size int, sent *counter) {
	for range streams {
		sent.running.Go(func() {
			for u.await(ctx, f, size) == nil {
				sent.add(size)
			}
		})
	}
}

type counter struct {
	running sync.WaitGroup
	mu      sync.Mutex
	bytes   int
}

func (c *counter) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += n
}

// within reports whether got is want, give or take a part of it.
func within(got int, want, part float64) bool {
	return float64(got) > want*(1-part) && float64(got) < want*(1+part)
}

func TestUplinkIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, seconds = 1 << 20, 20
		u := newUplink(limit)
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		var one, many, large counter
		send(ctx, u, flow{peer: "one"}, 1, 64<<10, &one)
		send(ctx, u, flow{peer: "many"}, 16, 64<<10, &many)
		send(ctx, u, flow{peer: "large"}, 1, 256<<10, &large)
		for name, c := range map[string]*counter{"one": &one, "many": &many, "large": &large} {
			c.running.Wait()
			if want := float64(limit*seconds) / 3; !within(c.bytes, want, 0.1) {
				t.Errorf("peer %s was sent %d bytes, want about %.0f", name, c.bytes, want)
			}
		}
	})
}

// What one peer does not want the others get.
func TestUplinkIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, seconds = 1 << 20, 20
		u := newUplink(limit)
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		var slow, fast counter
		slow.running.Go(func() {
			for u.await(ctx, flow{peer: "slow"}, 64<<10) == nil {
				slow.add(64 << 10)
				time.Sleep(time.Second)
			}
		})
		send(ctx, u, flow{peer: "fast"}, 2, 64<<10, &fast)
		slow.running.Wait()
		fast.running.Wait()
		if total := slow.bytes + fast.bytes; !within(total, limit*seconds, 0.05) {
			t.Errorf("%d bytes were sent, want about %d", total, limit*seconds)
		}
		if want := 64.0 * 1024 * seconds; !within(slow.bytes, want, 0.3) {
			t.Errorf("the slow peer was sent %d bytes, want about %.0f", slow.bytes, want)
		}
	})
}

// The limit may change, and go, while streams wait for it.
func TestUplinkChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUplink(64 << 10)
		var sent counter
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		send(ctx, u, flow{peer: "p"}, 2, 256<<10, &sent)
		time.Sleep(5 * time.Second)
		u.limit(1 << 20)
		sent.running.Wait()
		if want := 5.0*(64<<10) + 5.0*(1<<20); !within(sent.bytes, want, 0.15) {
			t.Errorf("%d bytes were sent, want about %.0f", sent.bytes, want)
		}
		u.limit(0)
		before := time.Now()
		for range 1000 {
			if err := u.await(t.Context(), flow{peer: "p"}, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(before); took > 0 {
			t.Errorf("without a limit sending took %v", took)
		}
	})
}

// Whoever loses patience leaves nobody else waiting.
func TestUplinkLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUplink(1 << 20)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		var leaving sync.WaitGroup
		for range 10 {
			leaving.Go(func() {
				if err := u.await(ctx, flow{peer: "impatient"}, 1<<20); !errors.Is(err, context.Canceled) {
					t.Errorf("await() = %v", err)
				}
			})
		}
		start := time.Now()
		if err := u.await(t.Context(), flow{peer: "patient"}, 1<<20); err != nil {
			t.Fatal(err)
		}
		leaving.Wait()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("waited %v for a second's bytes", took)
		}
	})
}
