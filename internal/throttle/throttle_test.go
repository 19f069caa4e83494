package throttle_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/throttle"
)

// fetch fetches pieces over lines of their own until ctx ends, and counts the bytes
// of each.
func fetch(ctx context.Context, t *throttle.Throttle, sizes ...int64) (got []*atomic.Int64, wait func()) {
	var running sync.WaitGroup
	for _, size := range sizes {
		n, line := new(atomic.Int64), t.Line()
		got = append(got, n)
		running.Go(func() {
			for {
				pay, err := line.Await(ctx)
				if err != nil {
					return
				}
				pay(size)
				n.Add(size)
			}
		})
	}
	return got, running.Wait
}

func within(got int64, want float64) bool {
	return float64(got) > 0.9*want && float64(got) < 1.1*want
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, seconds = 1 << 20, 20
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		got, wait := fetch(ctx, throttle.New(limit), 64<<10, 64<<10, 64<<10, 64<<10)
		wait()
		for i, n := range got {
			if !within(n.Load(), limit*seconds/4) {
				t.Errorf("line %d got %d bytes, want about %d", i, n.Load(), limit*seconds/4)
			}
		}
	})
}

// The limit may change, and go, while lines wait for it; and what is left to be
// paid changes with it.
func TestLimitChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const low, high = 64 << 10, 1 << 20
		limit := throttle.New(low)
		line := limit.Line()
		pay, err := line.Await(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pay(100 * low)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		begin := time.Now()
		time.AfterFunc(time.Second, func() { limit.Limit(high) })
		if pay, err = line.Await(ctx); err != nil {
			t.Fatal(err)
		}
		pay(high)
		if took := time.Since(begin); took < 6*time.Second || took > 8*time.Second {
			t.Errorf("after %v, want about 7 s", took)
		}
		time.AfterFunc(100*time.Millisecond, func() { limit.Limit(0) })
		begin = time.Now()
		for range 1000 {
			pay, err := line.Await(ctx)
			if err != nil {
				t.Fatal(err)
			}
			pay(1 << 30)
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("without a limit it took %v", took)
		}
	})
}

// A line knows how long it was held up, but not for how long its source was.
func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := throttle.New(1000)
		one, other := limit.Line(), limit.Line()
		for range 3 {
			pay, err := one.Await(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			pay(2000)
			time.Sleep(time.Second) // the source's
		}
		if got := one.Held(); got < 1800*time.Millisecond || got > 2*time.Second {
			t.Errorf("held for %v, want about 2 s", got)
		}
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if _, err := other.Await(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Await: %v", err)
			}
		}()
		time.Sleep(250 * time.Millisecond)
		if !other.Waits() || one.Waits() || other.Held() != 250*time.Millisecond {
			t.Errorf("waits: %t, the other %t, which was held for %v", other.Waits(), one.Waits(), other.Held())
		}
		<-waited
		if other.Waits() {
			t.Error("who has lost patience waits")
		}
		// And leaves nobody else waiting.
		if _, err := one.Await(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestNoLine(t *testing.T) {
	line := throttle.From(t.Context())
	pay, err := line.Await(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pay(1 << 40)
	if line.Waits() || line.Held() != 0 || line.Most() != 0 {
		t.Error("a line of nobody has a limit")
	}
	other := throttle.New(1).Line()
	if throttle.From(throttle.With(t.Context(), other)) != other {
		t.Error("the line is not that of its context")
	}
}
