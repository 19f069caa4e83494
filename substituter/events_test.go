package substituter_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// measured makes the substituter tell of what it does.
func (l *lab) measured() (*events.Subscription, *meter.Meter) {
	l.t.Helper()
	l.deps.Events, l.deps.Meter = events.NewHub(), meter.New(newBucket(), zaptest.NewLogger(l.t))
	heard, err := l.deps.Events.Subscribe()
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(heard.Close)
	return heard, l.deps.Meter
}

// hear waits for so many events.
func hear(t *testing.T, s *events.Subscription, n int) (heard []events.Event) {
	t.Helper()
	for len(heard) < n {
		got, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		heard = append(heard, got...)
	}
	return heard
}

func TestARequestIsToldOfWithItsSources(t *testing.T) {
	l := newLab(t)
	core, logged := observer.New(zap.DebugLevel)
	l.deps.Log = zap.New(core)
	heard, bytes := l.measured()
	p := l.path("p", large)
	l.cache.add(p)
	l.peers.hold(p.info.NARHash, holding{nar: p.nar, earned: true, known: true})
	l.start()
	l.getNAR(p)
	l.get("/"+l.path("absent", 1).part().String()+".narinfo", http.StatusNotFound)

	var got []events.Request
	var fetches []*explain.Fetch
	for _, e := range hear(t, heard, 5) {
		switch e.Kind {
		case events.KindRequest:
			got = append(got, *e.Request)
		case events.KindFetch:
			fetches = append(fetches, e.Fetch)
		default:
			t.Errorf("event of kind %s", e.Kind)
		}
	}
	part, name := p.part().String(), p.info.StorePath.String()
	want := []events.Request{
		{What: "narinfo", HashPart: part, StorePath: name, Result: "found"},
		{What: "nar", HashPart: part, StorePath: name, Result: "served"},
		{What: "narinfo", HashPart: l.path("absent", 1).part().String(), Result: "absent"},
	}
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(func(a, b events.Request) bool { return a.What+a.Result < b.What+b.Result })); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if len(fetches) != 2 || fetches[0].Result != explain.Running || fetches[1].Result != explain.Served || fetches[1].StorePath != name {
		t.Fatalf("fetches are %+v", fetches)
	}
	if s := fetches[1].Sources; len(s) == 0 || s[0].Kind != explain.FromPeers || s[0].Bytes != large {
		t.Errorf("sources are %+v", s)
	}
	days, err := bytes.Days(t.Context(), 1)
	if err != nil || days[0].Amounts != (meter.Amounts{LAN: 1, Peer: large - 1}) {
		t.Errorf("the day's bytes are %+v, %v", days, err)
	}
	lines := logged.FilterMessage("nar fetched").All()
	if len(lines) != 1 || fmt.Sprint(lines[0].ContextMap()["sources"]) != fmt.Sprint(fetches[1].Sources) {
		t.Errorf("the log has %+v, want one line with all sources", lines)
	}
	if left := l.server.Flights(); len(left) != 0 {
		t.Errorf("still under way: %+v", left)
	}
}

func TestAFlightShowsWhoGaveWhichPart(t *testing.T) {
	l := newLab(t)
	l.measured()
	p := l.path("p", large)
	l.cache.add(p)
	l.peers.hold(p.info.NARHash, holding{nar: p.nar, earned: true, known: true, cutAt: large / 4})
	h := l.halt(large / 2)
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	resp := l.begin(t.Context(), p)
	<-h.begun
	// The upstream goes on where the peers broke off, and the client has all but
	// what is held back.
	if _, err := io.CopyN(io.Discard, resp.Body, large/2-(1<<20)); err != nil {
		t.Fatal(err)
	}
	var flight explain.Flight
	for deadline := time.Now().Add(time.Minute); flight.Done < large/2; time.Sleep(time.Millisecond) {
		if flights := l.server.Flights(); len(flights) == 1 {
			flight = flights[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("the half did not come: %+v", flight)
		}
	}
	if flight.Result != explain.Running || flight.Done != large/2 || flight.ID != 1 || flight.NARSize != large {
		t.Errorf("under way: %+v", flight)
	}
	want := []explain.Giver{
		{Kind: explain.FromPeers, Name: "first", Via: "lan", Bytes: 1},
		{Kind: explain.FromPeers, Name: "neighbour", Bytes: large/4 - 1},
		{Kind: explain.FromUpstream, Name: l.cache.url, Bytes: large / 4},
	}
	if diff := cmp.Diff(want, flight.Givers); diff != "" {
		t.Errorf("givers (-want +got):\n%s", diff)
	}
	count := map[int]int{}
	for _, c := range flight.Cells {
		count[c]++
	}
	if n := len(flight.Cells); n > 256 || count[1] < n/2-1 || count[2] < n/2-1 || flight.Cells[0] != 1 {
		t.Errorf("cells of %d bytes: %v", flight.CellBytes, flight.Cells)
	}
	close(h.goOn)
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotDeliveredIsAProblem(t *testing.T) {
	l := newLab(t)
	l.measured()
	p := l.path("p", small)
	l.peers.add(p.info) // who have the record and not the NAR
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	l.get(p.narURL(), http.StatusNotFound)
	got := l.deps.Events.Problems()
	if len(got) != 1 || !strings.HasPrefix(got[0].Problem.Text, p.info.StorePath.String()+" was not delivered: no source is left") {
		t.Errorf("problems: %+v", got)
	}
}
