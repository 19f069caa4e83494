package events_test

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/logging"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func request(name string) events.Event {
	return events.Event{Kind: events.KindRequest, Request: &events.Request{What: "narinfo", HashPart: name}}
}

func subscribe(t *testing.T, hub *events.Hub) *events.Subscription {
	t.Helper()
	s, err := hub.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func next(t *testing.T, s *events.Subscription) []events.Event {
	t.Helper()
	got, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEveryoneHearsWhatIsPublishedWhileListening(t *testing.T) {
	hub := events.NewHub()
	hub.Publish(request("before"))
	first, second := subscribe(t, hub), subscribe(t, hub)
	hub.Publish(request("a"))
	hub.Publish(request("b"))
	for _, s := range []*events.Subscription{first, second} {
		got := next(t, s)
		if len(got) != 2 || got[0].Request.HashPart != "a" || got[1].Request.HashPart != "b" || got[0].Time.IsZero() {
			t.Errorf("Next() = %+v, want a and b with their times", got)
		}
	}
}

func TestWhoIsTooSlowLosesTheOldestEventsAndIsToldHowMany(t *testing.T) {
	hub := events.NewHub()
	s := subscribe(t, hub)
	const all = 5000
	for i := range all {
		hub.Publish(request(strconv.Itoa(i)))
	}
	got := next(t, s)
	if got[0].Kind != events.KindLost || got[0].Lost+uint64(len(got)-1) != all {
		t.Fatalf("first of %d events = %+v, want word of all others that were lost", len(got), got[0])
	}
	for i, e := range got[1:] {
		if want := strconv.Itoa(int(got[0].Lost) + i); e.Request.HashPart != want {
			t.Fatalf("event %d = %s, want %s", i, e.Request.HashPart, want)
		}
	}
	hub.Publish(request("later"))
	if got := next(t, s); len(got) != 1 || got[0].Request.HashPart != "later" {
		t.Errorf("Next() = %+v, want the one that came later", got)
	}
}

func TestNextWaitsAndEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := events.NewHub()
		s := subscribe(t, hub)
		time.AfterFunc(time.Minute, func() { hub.Publish(request("a")) })
		if got := next(t, s); len(got) != 1 {
			t.Errorf("Next() = %+v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next() = %v", err)
		}
	})
}

func TestSubscribersAreBounded(t *testing.T) {
	hub := events.NewHub()
	var last *events.Subscription
	for range 1000 {
		s, err := hub.Subscribe()
		if errors.Is(err, events.ErrTooMany) {
			last.Close()
			if _, err := hub.Subscribe(); err != nil {
				t.Errorf("Subscribe() after a Close = %v", err)
			}
			return
		}
		last = s
	}
	t.Error("1000 subscribers were let in")
}

func TestWarningsOfTheLogArePublishedAndRemembered(t *testing.T) {
	hub := events.NewHub()
	var text bytes.Buffer
	log, _, err := logging.New(&text, "error", logging.Console)
	if err != nil {
		t.Fatal(err)
	}
	log = hub.Warnings(log).Named("substituter").With(zap.String("upstream", "https://cache.example"))
	log.Info("all is well")
	log.Warn("upstream is left alone", zap.Error(errors.New("status 503")), zap.Duration("wait", time.Second))
	got := hub.Problems()
	want := events.Problem{
		Severity: "warn", Part: "substituter", Text: "upstream is left alone: upstream https://cache.example, status 503, wait 1s",
	}
	if len(got) != 1 || got[0].Kind != events.KindProblem || *got[0].Problem != want {
		t.Errorf("Problems() = %+v, want %+v", got, want)
	}
	if text.Len() > 0 {
		t.Errorf("a log for errors alone has %q", text.String())
	}
	for i := range 1000 {
		log.Error("damaged", zap.String("path", strings.Repeat("x", 10_000)), zap.Int("number", i))
	}
	got = hub.Problems()
	if len(got) > 100 || len(got[0].Problem.Text) > 1000 {
		t.Errorf("%d problems are kept, the first of %d bytes", len(got), len(got[0].Problem.Text))
	}
}

func TestNilHubTakesEvents(t *testing.T) {
	var hub *events.Hub
	hub.Publish(request("a"))
	if hub.Watched() {
		t.Error("a nil hub is watched")
	}
}
