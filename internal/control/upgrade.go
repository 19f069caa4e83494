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

// upgradeTimeout is how long it may take to find out what an upgrade costs. A
// thousand paths take some ten seconds.
const upgradeTimeout = 15 * time.Minute

// maxUpgradePaths bounds the paths of one request, which is never split, and
// maxUpgradeBody has room for them: the closure of a system has some 3,000.
const (
	maxUpgradePaths = 20_000
	maxUpgradeBody  = maxUpgradePaths * 300
)

// Upgrader is what says what an upgrade would cost.
type Upgrader interface {
	// UpgradePlan tells, of paths and, unless alone is set, all that they refer to,
	// what it would cost to fetch them. The error is the last that it gives.
	UpgradePlan(ctx context.Context, paths []nix.StorePath, alone bool) iter.Seq2[*UpgradePath, error]
}

func (h *handler) upgradePlan(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), upgradeTimeout)
	defer cancel()
	var request UpgradeRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxUpgradeBody)).Decode(&request); err != nil {
		h.refuse(w, r, badRequest("request: %v", err))
		return
	}
	paths, err := parsePaths(request.Paths, maxUpgradePaths)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	flush := http.NewResponseController(w).Flush
	send := func(event UpgradeEvent) bool { return lines.Encode(event) == nil && flush() == nil }
	for path, err := range h.node.UpgradePlan(ctx, paths, request.Alone) {
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			send(UpgradeEvent{Error: &Error{Status: http.StatusGatewayTimeout, Message: fmt.Sprintf("it was ended after %v", upgradeTimeout)}})
			return
		case err != nil:
			send(UpgradeEvent{Error: asError(err)})
			return
		case !send(UpgradeEvent{Path: path}):
			return
		}
	}
	send(UpgradeEvent{Done: true})
}

// UpgradePlan asks what it would cost to fetch paths and, unless alone is set,
// all that they refer to, and calls f for each.
func (c *Client) UpgradePlan(ctx context.Context, paths []nix.StorePath, alone bool, f func(*UpgradePath) error) error {
	request := UpgradeRequest{Alone: alone}
	for _, path := range paths {
		request.Paths = append(request.Paths, path.String())
	}
	response, err := c.do(ctx, http.MethodPost, "/v1/upgrade-plan", request)
	if err != nil {
		return err
	}
	return errors.Join(readUpgrade(response.Body, f), response.Body.Close())
}

func readUpgrade(r io.Reader, f func(*UpgradePath) error) error {
	lines := json.NewDecoder(r)
	for {
		var event UpgradeEvent
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
