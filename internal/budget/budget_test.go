package budget_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/internal/budget"
)

// Each use leaves something to those before it.
func TestUses(t *testing.T) {
	b := budget.New(800)
	take := func(use budget.Use, n int64, want bool) {
		t.Helper()
		if got := b.TryAcquire(use, n); got != want {
			t.Errorf("TryAcquire(%s, %d) = %t", use, n, got)
		}
	}
	take(budget.Window, 601, false)
	take(budget.Window, 600, true)
	take(budget.Window, 1, false)
	take(budget.Held, 101, false)
	take(budget.Held, 100, true)
	take(budget.Least, 101, false)
	take(budget.Least, 100, true)
	b.Release(budget.Window, 300)
	take(budget.Held, 200, true)
	take(budget.Window, 1, false)
}

func TestAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(80)
		var order []string
		acquire := func(ctx context.Context, name string, use budget.Use, n int64) {
			go func() {
				if err := b.Acquire(ctx, use, n); err != nil {
					name += " failed"
				}
				order = append(order, name)
			}()
			synctest.Wait()
		}
		if err := b.Acquire(t.Context(), budget.Held, 71); err == nil {
			t.Error("more was granted than there is")
		}
		ctx, cancel := context.WithCancel(t.Context())
		acquire(t.Context(), "first", budget.Held, 60)
		acquire(ctx, "large", budget.Held, 50)
		acquire(t.Context(), "small", budget.Held, 10) // there is room, but large was first
		acquire(t.Context(), "least", budget.Least, 10)
		cancel()
		synctest.Wait()
		acquire(t.Context(), "waits", budget.Held, 60)
		b.Release(budget.Held, 60)
		synctest.Wait()
		acquire(t.Context(), "end", budget.Least, 1)
		if diff := cmp.Diff([]string{"first", "least", "large failed", "small", "end"}, order); diff != "" {
			t.Errorf("order (-want +got)\n%s", diff)
		}
		b.Release(budget.Least, 11)
		b.Release(budget.Held, 10)
		synctest.Wait()
		if len(order) != 6 {
			t.Errorf("order %v, not all were served", order)
		}
	})
}

// Many take and give back at random: the total holds, and nothing is lost.
func TestTotalHolds(t *testing.T) {
	const total = 1000
	b := budget.New(total)
	var mu sync.Mutex
	used := int64(0)
	count := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		if used += n; used > total {
			t.Errorf("%d bytes are used", used)
		}
	}
	var workers sync.WaitGroup
	for seed := range uint64(16) {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			for range 500 {
				use, n := budget.Use(r.IntN(3)), 1+r.Int64N(200)
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(4) == 0 {
					cancel()
				}
				if err := b.Acquire(ctx, use, n); err == nil {
					count(n)
					count(-n)
					b.Release(use, n)
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	workers.Wait()
	for _, use := range []budget.Use{budget.Least, budget.Held, budget.Window} {
		if n := b.Used(use); n != 0 {
			t.Errorf("%d bytes of %s are left", n, use)
		}
	}
}

func TestMetrics(t *testing.T) {
	b := budget.New(0)
	b.TryAcquire(budget.Held, 5)
	registry := prometheus.NewRegistry()
	registry.MustRegister(b)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"nar_p2p_memory_limit_bytes":       budget.Default,
		"nar_p2p_memory_used_bytes held":   5,
		"nar_p2p_memory_used_bytes least":  0,
		"nar_p2p_memory_used_bytes window": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got)\n%s", diff)
	}
}
