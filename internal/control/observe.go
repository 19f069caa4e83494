package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
)

// Observed is what a Node shows its owner while it runs, and the switch for what
// it shares.
type Observed interface {
	// Subscribe returns what happens from now on.
	Subscribe() (*events.Subscription, error)
	// Days returns the traffic of at most the last n days.
	Days(ctx context.Context, n int) ([]meter.Day, error)
	// Pause ends sharing for a time, or, if that is 0, until Resume.
	Pause(d time.Duration) (Sharing, error)
	Resume() (Sharing, error)
	// Dashboard tells where the dashboard is, and its token.
	Dashboard() Dashboard
}

// Sharing says whether sharing is paused.
type Sharing = events.Sharing

// PauseRequest ends sharing.
type PauseRequest struct {
	// Seconds is for how long; 0 is until it is resumed.
	Seconds int64 `json:"seconds,omitempty"`
}

// Stats is the traffic by day, the latest last.
type Stats struct {
	Days []meter.Day `json:"days"`
}

// Dashboard says where the dashboard is.
type Dashboard struct {
	// URL holds the token with which the page may change something.
	URL string `json:"url"`
}

// maxPause is longer than any pause that is not meant for good.
const maxPause = 366 * 24 * time.Hour

// events streams what happens, as lines, until the client goes.
func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	heard, err := h.node.Subscribe()
	if err != nil {
		h.refuse(w, r, &Error{Status: http.StatusServiceUnavailable, Message: err.Error(), Hint: "end another p2pctl watch first"})
		return
	}
	defer heard.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines, flush := json.NewEncoder(w), http.NewResponseController(w).Flush
	for {
		if flush() != nil {
			return
		}
		got, err := heard.Next(r.Context())
		if err != nil {
			return
		}
		for _, e := range got {
			if lines.Encode(e) != nil {
				return
			}
		}
	}
}

func stats(r *http.Request, node Node) (*Stats, error) {
	n := meter.KeptDays
	if text := r.URL.Query().Get("days"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > meter.KeptDays {
			return nil, badRequest("days: %.20q is not a number from 1 to %d", text, meter.KeptDays)
		}
	}
	days, err := node.Days(r.Context(), n)
	return &Stats{Days: days}, err
}

func pause(r *http.Request, node Node) (Sharing, error) {
	var request PauseRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return Sharing{}, badRequest("request: %v", err)
	}
	return Pause(node, request)
}

// Pause pauses the sharing of a node as a request wants it.
func Pause(node Observed, request PauseRequest) (Sharing, error) {
	if request.Seconds < 0 || request.Seconds > int64(maxPause/time.Second) {
		return Sharing{}, badRequest("a pause of %d seconds is not from 0 to %d", request.Seconds, int64(maxPause/time.Second))
	}
	return node.Pause(time.Duration(request.Seconds) * time.Second)
}

// Events calls f for everything that happens until ctx ends or f returns an
// error.
func (c *Client) Events(ctx context.Context, f func(events.Event) error) error {
	response, err := c.do(ctx, http.MethodGet, "/v1/events", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	for lines := json.NewDecoder(response.Body); ; {
		var e events.Event
		switch err := lines.Decode(&e); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%w any more: it has stopped", ErrUnreachable)
		case err != nil:
			return fmt.Errorf("answer of nar-p2pd: %w", err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
}

// Stats asks for the traffic of at most the last n days.
func (c *Client) Stats(ctx context.Context, n int) (Stats, error) {
	var s Stats
	err := c.get(ctx, http.MethodGet, "/v1/stats?days="+strconv.Itoa(n), nil, &s)
	return s, err
}

// Pause ends sharing for a time, or, if that is 0, until Resume.
func (c *Client) Pause(ctx context.Context, d time.Duration) (Sharing, error) {
	var s Sharing
	err := c.get(ctx, http.MethodPost, "/v1/pause", PauseRequest{Seconds: int64(math.Ceil(d.Seconds()))}, &s)
	return s, err
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context) (Sharing, error) {
	var s Sharing
	err := c.get(ctx, http.MethodPost, "/v1/resume", struct{}{}, &s)
	return s, err
}

// Dashboard asks where the dashboard is.
func (c *Client) Dashboard(ctx context.Context) (Dashboard, error) {
	var d Dashboard
	err := c.get(ctx, http.MethodGet, "/v1/dashboard", nil, &d)
	return d, err
}
