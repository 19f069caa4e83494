package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// closureTimeout is how long it may take to find something out about a closure. A
// thousand paths take some ten seconds where peers are asked, and some minutes
// where the DHT is.
const closureTimeout = 30 * time.Minute

// maxClosurePaths bounds the paths of one request, which is never split, and
// maxClosureBody has room for them: the closure of a system has some 3,000.
const (
	maxClosurePaths = 20_000
	maxClosureBody  = maxClosurePaths * 300
)

// Closures is what tells of paths and, unless alone is set, all that they refer
// to. The error is the last that an iterator gives.
type Closures interface {
	// UpgradePlan tells what it would cost to fetch them.
	UpgradePlan(ctx context.Context, paths []nix.StorePath, alone bool) iter.Seq2[*UpgradePath, error]
	// Health tells how many peers have them.
	Health(ctx context.Context, paths []nix.StorePath, alone bool) iter.Seq2[*HealthPath, error]
}

// tellClosure makes a handler of a ClosureRequest.
func tellClosure[P any](h *handler, tell func(context.Context, []nix.StorePath, bool) iter.Seq2[*P, error]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), closureTimeout)
		defer cancel()
		var request ClosureRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxClosureBody)).Decode(&request); err != nil {
			h.refuse(w, r, badRequest("request: %v", err))
			return
		}
		paths, err := parsePaths(request.Paths, maxClosurePaths)
		if err != nil {
			h.refuse(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		lines := json.NewEncoder(w)
		flush := http.NewResponseController(w).Flush
		send := func(event ClosureEvent[P]) bool { return lines.Encode(event) == nil && flush() == nil }
		for path, err := range tell(ctx, paths, request.Alone) {
			switch {
			case errors.Is(ctx.Err(), context.DeadlineExceeded):
				send(ClosureEvent[P]{Error: &Error{Status: http.StatusGatewayTimeout, Message: fmt.Sprintf("it was ended after %v", closureTimeout)}})
				return
			case err != nil:
				send(ClosureEvent[P]{Error: asError(err)})
				return
			case !send(ClosureEvent[P]{Path: path}):
				return
			}
		}
		send(ClosureEvent[P]{Done: true})
	}
}

// UpgradePlan asks what it would cost to fetch paths and, unless alone is set,
// all that they refer to, and calls f for each.
func (c *Client) UpgradePlan(ctx context.Context, paths []nix.StorePath, alone bool, f func(*UpgradePath) error) error {
	return askClosure(ctx, c, "/v1/upgrade-plan", ClosureRequest{Paths: textsOf(paths), Alone: alone}, f)
}

// Health asks how many peers have paths and, unless alone is set, all that they
// refer to, and calls f for each.
func (c *Client) Health(ctx context.Context, paths []nix.StorePath, alone bool, f func(*HealthPath) error) error {
	return askClosure(ctx, c, "/v1/health", ClosureRequest{Paths: textsOf(paths), Alone: alone}, f)
}

func textsOf(paths []nix.StorePath) []string {
	texts := make([]string, len(paths))
	for i, path := range paths {
		texts[i] = path.String()
	}
	return texts
}

func askClosure[P any](ctx context.Context, c *Client, endpoint string, request ClosureRequest, f func(*P) error) error {
	response, err := c.do(ctx, http.MethodPost, endpoint, request)
	if err != nil {
		return err
	}
	return errors.Join(readClosure(response.Body, f), response.Body.Close())
}

func readClosure[P any](r io.Reader, f func(*P) error) error {
	lines := json.NewDecoder(r)
	for {
		var event ClosureEvent[P]
		if err := lines.Decode(&event); err != nil {
			return fmt.Errorf("answer of nar-p2pd: %w", noEOF(err))
		}
		switch {
		case event.Done:
			return nil
		case event.Error != nil:
			return event.Error
		case event.Path == nil:
			continue // of a later version
		}
		if err := f(event.Path); err != nil {
			return err
		}
	}
}
