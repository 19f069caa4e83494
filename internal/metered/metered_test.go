package metered_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/metered"
	"github.com/nar-p2p/nar-p2p/internal/metered/meteredtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait. It is there to fail, not to be waited for.
const patience = time.Minute

func newBus(t *testing.T) *meteredtest.Bus {
	t.Helper()
	b, err := meteredtest.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func start(t *testing.T, b *meteredtest.Bus) {
	t.Helper()
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
}

func manage(t *testing.T, b *meteredtest.Bus, verdict any) *meteredtest.Manager {
	t.Helper()
	m, err := b.Manager(verdict)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// watch watches, and returns what waits for a verdict. Those before it are passed
// over where they are allowed to come.
func watch(t *testing.T, b *meteredtest.Bus) (next func(want metered.Verdict)) {
	t.Helper()
	verdicts := make(chan metered.Verdict, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- metered.Watch(ctx, metered.Config{Address: b.Address(), Retry: 10 * time.Millisecond}, func(v metered.Verdict) { verdicts <- v }, zap.NewNop())
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch: %v", err)
		}
	})
	return func(want metered.Verdict) {
		t.Helper()
		select {
		case got := <-verdicts:
			if got.Metered != want.Metered || !strings.Contains(got.Unknown, want.Unknown) || (got.Unknown == "") != (want.Unknown == "") {
				t.Errorf("verdict %+v, want %+v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("no verdict, want %+v", want)
		}
	}
}

func TestWatch(t *testing.T) {
	b := newBus(t)
	next := watch(t, b)
	next(metered.Verdict{Unknown: "cannot be reached"})
	start(t, b)
	next(metered.Verdict{Unknown: "does not run"})
	m := manage(t, b, uint32(0))
	next(metered.Verdict{Unknown: "does not know"})
	m.Say(1)
	next(metered.Verdict{Metered: true})
	m.Say(2)
	next(metered.Verdict{})
	m.Say(3) // a guess
	next(metered.Verdict{Metered: true})
	m.Say(4) // likewise
	next(metered.Verdict{})
	m.Close()
	next(metered.Verdict{Unknown: "does not run"})
	manage(t, b, uint32(1))
	next(metered.Verdict{Metered: true})
	b.Stop()
	next(metered.Verdict{Unknown: "cannot be reached"})
}

// Whoever has the name says what it likes.
func TestNonsense(t *testing.T) {
	for _, nonsense := range []any{"yes", int64(1), true} {
		b := newBus(t)
		start(t, b)
		manage(t, b, nonsense)
		watch(t, b)(metered.Verdict{Unknown: "is of type"})
	}
	b := newBus(t)
	start(t, b)
	manage(t, b, uint32(7))
	watch(t, b)(metered.Verdict{}) // a value to come is not one that says yes
}
