package swarm

import (
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

// maxAsked is how many runs a worker has asked for beside the one that is
// coming in. Together they may be the whole window.
const maxAsked = maxRuns - 1

// work fills runs of the window over one session until none is left or
// something fails. Runs that it leaves unfinished the window can give to
// another.
func (w *window) work(ctx context.Context, s *exchange.Session) error {
	defer w.abandon(s)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := make(chan *run, maxAsked)
	asking := make(chan error, 1)
	go func() {
		defer close(asked)
		asking <- w.ask(ctx, s, asked)
	}()
	err := w.receive(s, asked)
	cancel()
	// A peer that hangs up on requests has said why before, if at all.
	return cmp.Or(err, <-asking)
}

// ask asks for runs as the window gives them.
func (w *window) ask(ctx context.Context, s *exchange.Session, asked chan<- *run) error {
	for {
		r, err := w.take(ctx, s)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case asked <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.Ask(r.chunks[r.verified:]); err != nil {
			return err
		}
	}
}

// receive fills the runs asked for.
func (w *window) receive(s *exchange.Session, asked <-chan *run) error {
	for r := range asked {
		for !r.full() {
			if err := s.Receive(&r.chunks[r.verified], r.room()); err != nil {
				return err
			}
			w.deliver(r, s.Peer())
		}
	}
	return nil
}
