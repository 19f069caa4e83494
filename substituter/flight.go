package substituter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

// flight is one fetch of a NAR, or of a range of one, for all clients who ask
// for it at the same time. It ends when none of them is left.
type flight struct {
	rec    *record
	size   int64 // of the NAR, in bytes
	want   verify.Range
	window *window
	cancel context.CancelFunc
	done   chan struct{} // closed at the end
	// small says that the NAR is held until it is verified.
	small bool
	// clients is guarded by flights.mu.
	clients int
}

// small reports whether a NAR of this size is to be held until it is verified.
func (s *Server) small(size int64) bool {
	if limit := s.downloads.PerSecond(); limit > 0 && limit < smallNAR/smallTime {
		return size <= smallTime*limit
	}
	return size <= smallNAR
}

// joinable reports whether the rest of the NAR from an offset on may be had of
// the flight as well. What a client has of a small NAR was verified before it
// was sent; with a large one a client that resumes may hold something else than
// what comes here, and needs a gate of its own.
func (fl *flight) joinable(want verify.Range) bool {
	return want.To == fl.want.To && (want.From == fl.want.From || fl.small && want.From > fl.want.From)
}

// flights are those under way.
type flights struct {
	mu sync.Mutex
	of map[flightKey][]*flight
}

// flightKey is what a flight is about. The path counts too: its record may ask
// for more than the NAR's hash.
type flightKey struct {
	part nix.HashPart
	hash nix.NARHash
}

func keyOf(rec *record) flightKey {
	return flightKey{rec.info.StorePath.HashPart(), rec.info.NARHash}
}

// board gets a client a place in a flight that has what it wants, or in one that
// it starts.
func (s *Server) board(ctx context.Context, rec *record, want verify.Range) (*flight, *reader) {
	key := keyOf(rec)
	s.aloft.mu.Lock()
	defer s.aloft.mu.Unlock()
	for _, fl := range s.aloft.of[key] {
		if fl.joinable(want) {
			if place := fl.window.reader(want.From); place != nil {
				fl.clients++
				s.plans.shared.Inc()
				tracing.Of(ctx).Bool("nar_p2p.shared", true)
				return fl, place
			}
		}
	}
	// Under a context of its own: whoever came first may be the first to go.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl := &flight{rec: rec, size: rec.info.NARSize, want: want, small: s.small(rec.info.NARSize), cancel: cancel, done: make(chan struct{}), clients: 1}
	fl.window = newWindow(want.From, fl.small, s.spool)
	place := fl.window.reader(want.From) // before it can end
	s.aloft.of[key] = append(s.aloft.of[key], fl)
	s.tasks.begin()
	go func() {
		defer s.tasks.end()
		defer close(fl.done)
		s.fly(own, fl)
	}()
	return fl, place
}

// alight takes a client out of its flight, which ends with the last one.
func (s *Server) alight(fl *flight, place *reader) {
	place.close()
	key := keyOf(fl.rec)
	s.aloft.mu.Lock()
	defer s.aloft.mu.Unlock()
	if fl.clients--; fl.clients > 0 {
		return
	}
	fl.cancel()
	fl.window.end(errNoClient)
	rest := slices.DeleteFunc(s.aloft.of[key], func(other *flight) bool { return other == fl })
	if len(rest) == 0 {
		delete(s.aloft.of, key)
	} else {
		s.aloft.of[key] = rest
	}
}

// fly fetches what the flight is about.
func (s *Server) fly(ctx context.Context, fl *flight) {
	memory := fl.size
	if !fl.small {
		memory = windowRoom
	}
	if err := s.transfers.Acquire(ctx, 1); err != nil {
		return // no client is left
	}
	defer s.transfers.Release(1)
	if err := s.memory.Acquire(ctx, budget.Held, memory); err != nil {
		return
	}
	defer s.memory.Release(budget.Held, memory)
	ctx, span := tracing.Start(ctx, "fetch")
	p := s.reports.begin(ctx, fl.rec, fl.want.From)
	err := s.fetch(ctx, fl, p)
	// Last: a client that has its answer is gone, and may ask at once what became of
	// its request.
	defer fl.window.end(err)
	result := resultServed
	switch {
	case err == nil:
	case ctx.Err() != nil:
		result = resultGone
	case fl.window.begun():
		result = resultBroken
	default:
		result = resultFailed
	}
	traceFlight(span, fl, result, err)
	s.reports.end(fl.rec.info.NARHash, p, explain.Result(result), err)
	if result == resultBroken || result == resultFailed {
		s.log.Info("nar not delivered", zap.Stringer("storePath", fl.rec.info.StorePath), zap.String("result", result), tracing.ID(ctx), zap.Error(err))
		s.events.Publish(events.Event{Kind: events.KindProblem, Problem: &events.Problem{
			Severity: "warn", Part: "substituter", Text: fmt.Sprintf("%s was not delivered: %s", fl.rec.info.StorePath, problem(err)),
		}})
	}
}

// deliver sends what the response wants, and returns the result's name.
func (s *Server) deliver(ctx context.Context, rec *record, resp *response) string {
	want := resp.want
	for {
		err := s.passOn(ctx, rec, resp, want)
		var client *verify.ClientError
		switch {
		case err == nil:
			return resultServed
		case errors.Is(err, errOvertaken): // and goes on by itself, as if it resumed
			want.From = resp.want.From + resp.sent
			continue
		case ctx.Err() != nil, errors.As(err, &client):
			return resultGone
		case resp.begun:
			return resultBroken
		}
		return resultFailed
	}
}

// passOn sends what a flight brings.
func (s *Server) passOn(ctx context.Context, rec *record, resp *response, want verify.Range) error {
	fl, place := s.board(ctx, rec, want)
	defer s.alight(fl, place)
	defer context.AfterFunc(ctx, fl.window.wake)()
	for {
		data, err := place.read(ctx)
		switch {
		case err != nil:
			return err
		case len(data) == 0:
			<-fl.done // what is to be told of it is known
			return nil
		}
		if _, err := resp.Write(data); err != nil {
			return &verify.ClientError{Err: err}
		}
	}
}
