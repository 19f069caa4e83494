package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
)

const (
	// beat is how often the page hears of what has changed: for an eye that is at
	// once. Every slowBeats of them it hears of what changes slowly.
	beat      = 250 * time.Millisecond
	slowBeats = 4
	// aliveAfter is how long nothing may be sent: the next write shows whether the
	// page is still there.
	aliveAfter = 15 * time.Second
	// sendTimeout is for one write.
	sendTimeout = 10 * time.Second
	// maxEvents is how many events are shown of one beat, and maxPeers how many
	// peers: no page has room for more.
	maxEvents = 50
	maxPeers  = 200
)

// traffic is what the page gets to begin with.
type traffic struct {
	Days []meter.Day `json:"days"`
	meter.Lately
}

// stream sends what happens until the page goes or the node stops.
func (d *Dashboard) stream(stopping context.Context, w http.ResponseWriter, r *http.Request) {
	select {
	case d.streams <- struct{}{}:
		defer func() { <-d.streams }()
	default:
		writeText(w, http.StatusServiceUnavailable, "too many pages are open")
		return
	}
	heard, err := d.node.Subscribe()
	if err != nil {
		writeText(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer heard.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(stopping, cancel)()
	w.Header().Set("Content-Type", "text/event-stream")
	s := &sender{w: w, last: make(map[string][]byte), wrote: time.Now()}
	if s.begin(ctx, d.node) != nil {
		return
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if s.beat(d.node, heard, n%slowBeats == 0) != nil {
			return
		}
	}
}

// sender writes events of a stream.
type sender struct {
	w http.ResponseWriter
	// last is what was sent of each kind of which only changes are.
	last  map[string][]byte
	wrote time.Time
	// until is up to when the traffic was sent.
	until time.Time
}

// begin sends how everything stands.
func (s *sender) begin(ctx context.Context, node Node) error {
	days, err := node.Days(ctx, meter.KeptDays)
	if err != nil {
		return err
	}
	s.until = time.Now()
	return cmp.Or(
		s.send("traffic", traffic{days, node.Lately()}),
		s.send("problems", node.Problems()),
		s.slow(node),
		s.change("flights", node.Flights()),
	)
}

// beat sends what has changed.
func (s *sender) beat(node Node, heard *events.Subscription, slow bool) error {
	err := s.change("flights", node.Flights())
	if got := heard.Pending(); err == nil && len(got) > 0 {
		err = s.send("events", atMost(got, maxEvents))
	}
	if err == nil && slow {
		err = s.slow(node)
	}
	if err == nil && time.Since(s.wrote) >= aliveAfter {
		err = s.write([]byte(":\n\n"))
	}
	return err
}

// atMost leaves out what is more than n events, the oldest first, and says so.
func atMost(all []events.Event, n int) []events.Event {
	left := len(all) - n
	if left <= 0 {
		return all
	}
	lost := events.Event{Time: all[0].Time, Kind: events.KindLost, Lost: uint64(left)}
	return append([]events.Event{lost}, all[left:]...)
}

// slow sends what changes slowly, and the last seconds' traffic if there was any.
func (s *sender) slow(node Node) error {
	err := s.change("status", node.Status())
	peers, peersErr := node.Peers()
	if peersErr != nil {
		peers = nil // profile off has none
	}
	slices.SortStableFunc(peers, func(a, b control.Peer) int { return cmp.Compare(rank(a), rank(b)) })
	err = cmp.Or(err, s.change("peers", peers[:min(len(peers), maxPeers)]))
	since := node.Since(s.until)
	s.until = time.Unix(since.Start+since.Step*int64(len(since.Amounts)-1), 0)
	if err != nil || since.Empty() {
		return err
	}
	return s.change("seconds", since)
}

// rank puts peers that can have NARs first, and neighbours before others.
func rank(p control.Peer) int {
	switch {
	case p.Exchange && p.LAN:
		return 0
	case p.Exchange:
		return 1
	default:
		return 2
	}
}

// change sends v if it is not what was sent last.
func (s *sender) change(kind string, v any) error {
	data, err := json.Marshal(v)
	if err != nil || bytes.Equal(data, s.last[kind]) {
		return err
	}
	s.last[kind] = data
	return s.write(fmt.Appendf(nil, "event: %s\ndata: %s\n\n", kind, data))
}

func (s *sender) send(kind string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.write(fmt.Appendf(nil, "event: %s\ndata: %s\n\n", kind, data))
}

func (s *sender) write(data []byte) error {
	s.wrote = time.Now()
	controller := http.NewResponseController(s.w)
	if err := controller.SetWriteDeadline(s.wrote.Add(sendTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	return controller.Flush()
}
