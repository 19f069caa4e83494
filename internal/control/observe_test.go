package control_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
)

// observed is a node that tells of what hub does.
type observed struct {
	control.Node
	hub  *events.Hub
	asks []int
}

func (o *observed) Subscribe() (*events.Subscription, error) { return o.hub.Subscribe() }

func (o *observed) Days(_ context.Context, n int) ([]meter.Day, error) {
	o.asks = append(o.asks, n)
	return []meter.Day{{Date: "2026-01-31", Amounts: meter.Amounts{LAN: 7}}}, nil
}

func (o *observed) Pause(d time.Duration) (control.Sharing, error) {
	return control.Sharing{Paused: true, Until: time.Unix(int64(d/time.Second), 0)}, nil
}

func TestEventsAreStreamed(t *testing.T) {
	o := &observed{hub: events.NewHub()}
	client := newClient(t, o)
	stop := errors.New("stop")
	go func() { // until somebody listens
		for t.Context().Err() == nil {
			o.hub.Publish(events.Event{Kind: events.KindSharing, Sharing: &events.Sharing{Paused: true}})
			time.Sleep(time.Millisecond)
		}
	}()
	err := client.Events(t.Context(), func(e events.Event) error {
		if e.Kind != events.KindSharing || !e.Sharing.Paused || e.Time.IsZero() {
			t.Errorf("event %+v", e)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("Events() = %v", err)
	}
}

func TestTooManyListenersAreTurnedAway(t *testing.T) {
	o := &observed{hub: events.NewHub()}
	client := newClient(t, o)
	for {
		if _, err := o.hub.Subscribe(); err != nil {
			break
		}
	}
	err := client.Events(t.Context(), func(events.Event) error { return nil })
	refusal, ok := errors.AsType[*control.Error](err)
	if !ok || refusal.Status != http.StatusServiceUnavailable || refusal.Hint == "" {
		t.Errorf("Events() = %v", err)
	}
}

func TestStatsOfSoManyDays(t *testing.T) {
	o := &observed{}
	client := newClient(t, o)
	got, err := client.Stats(t.Context(), 3)
	if err != nil || len(got.Days) != 1 || got.Days[0].LAN != 7 || o.asks[0] != 3 {
		t.Errorf("Stats() = %+v, %v", got, err)
	}
	for _, n := range []int{0, -1, 401} {
		if _, err := client.Stats(t.Context(), n); err == nil {
			t.Errorf("Stats(%d) was answered", n)
		}
	}
}

func TestPauseForSoLong(t *testing.T) {
	client := newClient(t, &observed{})
	got, err := client.Pause(t.Context(), 1500*time.Millisecond)
	if err != nil || !got.Paused || got.Until.Unix() != 2 {
		t.Errorf("Pause() = %+v, %v", got, err)
	}
	for _, d := range []time.Duration{-time.Hour, 367 * 24 * time.Hour} {
		if _, err := client.Pause(t.Context(), d); err == nil {
			t.Errorf("Pause(%v) was done", d)
		}
	}
}
