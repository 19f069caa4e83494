package meter_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// bucket opens a real one. Its goroutines do not live in a bubble of synctest.
func bucket(t *testing.T) *state.Bucket {
	t.Helper()
	db, err := state.Open(t.TempDir(), zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db.Bucket("traffic")
}

func days(t *testing.T, m *meter.Meter, n int) []meter.Day {
	t.Helper()
	got, err := m.Days(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestADayOutlivesARestart(t *testing.T) {
	b := bucket(t)
	first := meter.New(b, zaptest.NewLogger(t))
	first.ServedFrom(func() int64 { return 7 })
	first.Add(meter.Amounts{Peer: 10, Upstream: 1})
	first.Add(meter.Amounts{LAN: 5, Store: 2})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := first.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	second := meter.New(b, zaptest.NewLogger(t))
	second.ServedFrom(func() int64 { return 3 })
	second.Add(meter.Amounts{Peer: 1})
	got := days(t, second, 10)
	want := meter.Amounts{Store: 2, LAN: 5, Peer: 11, Upstream: 1, Served: 10}
	if last := got[len(got)-1].Amounts; last != want {
		t.Errorf("today is %+v, want %+v", last, want)
	}
	if want.Fetched() != 19 || want.Saved() != 18 {
		t.Errorf("of %+v %d bytes were fetched and %d saved", want, want.Fetched(), want.Saved())
	}
}

// memory is a bucket that lives in a bubble of synctest.
type memory map[string][]byte

func (m memory) Get(key []byte) ([]byte, error) {
	if v, ok := m[string(key)]; ok {
		return v, nil
	}
	return nil, errors.New("absent")
}

func (m memory) Put(key, value []byte, _ time.Duration) error {
	m[string(key)] = value
	return nil
}

func (m memory) Each(_ context.Context, f func(key, value []byte) error) error {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := f([]byte(key), m[key]); err != nil {
			return err
		}
	}
	return nil
}

func TestEachDayHasItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which begins at midnight in 2000
		m := meter.New(memory{"2000": []byte("{}"), "1999-12-30": []byte("broken")}, zaptest.NewLogger(t))
		m.Add(meter.Amounts{Peer: 1})
		time.Sleep(24 * time.Hour)
		m.Add(meter.Amounts{Peer: 2})
		time.Sleep(48 * time.Hour)
		m.Add(meter.Amounts{Peer: 3})
		all := days(t, m, 10)
		var got []int64
		for _, d := range all {
			got = append(got, d.Peer)
		}
		if !slices.Equal(got, []int64{1, 2, 3}) || all[2].Date <= all[1].Date {
			t.Errorf("days are %+v", all)
		}
		if last := days(t, m, 1); !slices.Equal(last, all[2:]) {
			t.Errorf("the last day is %+v", last)
		}
	})
}

func TestWhatCameOfLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := meter.New(memory{}, zaptest.NewLogger(t))
		m.Add(meter.Amounts{Peer: 1})
		time.Sleep(2 * time.Second)
		m.Add(meter.Amounts{LAN: 2})
		m.Add(meter.Amounts{LAN: 2})
		start := time.Now().Add(-2 * time.Second)
		got := m.Since(start)
		want := meter.Series{Start: start.Unix(), Step: 1, Amounts: []meter.Amounts{{Peer: 1}, {}, {LAN: 4}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Since() (-want +got):\n%s", diff)
		}
		lately := m.Lately()
		if n := len(lately.Minutes.Amounts); n != 24*60 || lately.Minutes.Amounts[n-1] != (meter.Amounts{Peer: 1, LAN: 4}) {
			t.Errorf("the last of %d minutes is %+v", n, lately.Minutes.Amounts[n-1])
		}
		// After a long silence nothing is left of what lay in the ring.
		time.Sleep(time.Hour)
		for _, a := range m.Since(time.Now().Add(-2 * time.Hour)).Amounts {
			if a != (meter.Amounts{}) {
				t.Errorf("an hour later there is still %+v", a)
			}
		}
	})
}

func TestWhatPeersGetIsCountedWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		served := int64(0)
		m := meter.New(memory{}, zaptest.NewLogger(t))
		m.ServedFrom(func() int64 { return served })
		served = 100
		if got := days(t, m, 1)[0].Served; got != 100 {
			t.Errorf("served = %d", got)
		}
		served = 130
		time.Sleep(time.Second)
		a := m.Since(time.Now()).Amounts
		if got := a[len(a)-1].Served; got != 30 {
			t.Errorf("served in the last second = %d", got)
		}
	})
}
