package substituter

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// keepAbsent is how long an upstream's 404 is remembered: long enough for
	// the parallel questions of one nix command, short enough for a fresh build.
	keepAbsent = 30 * time.Second
	// storePatience is how long the local store may think about one path. Its
	// database takes a millisecond.
	storePatience = 500 * time.Millisecond
)

// ErrUnknown says that a path was not found, and that those who could know
// whether there is such a path did not all answer.
var ErrUnknown = errors.New("substituter: not everybody who could know has answered")

// Lookup returns the record of a path in the form in which Nix gets it, and
// whether strangers may be asked about its NAR. The error is
// narstore.ErrNotFound where there is no such path, and ErrUnknown where nobody
// knows. It takes no longer than the deadline.
func (s *Server) Lookup(ctx context.Context, part nix.HashPart) (info *narinfo.Info, strangers bool, err error) {
	r, err := s.lookup(ctx, part)
	if err != nil {
		return nil, false, err
	}
	return r.forNix(), s.mayTellStrangers(r.record), nil
}

// Present takes note that paths have come into being, or signatures of them:
// that they were absent a moment ago means nothing any more.
func (s *Server) Present(parts ...nix.HashPart) {
	for _, part := range parts {
		s.absent.remove(part)
	}
}

// lookup returns the current record of a hash part.
func (s *Server) lookup(ctx context.Context, part nix.HashPart) (*rendered, error) {
	if r := s.records.memory.get(part); r != nil {
		return r, nil
	}
	return s.coalesce(ctx, part.String(), func(ctx context.Context) (*rendered, error) {
		if r := s.records.current(part); r != nil {
			return r, nil
		}
		if r := s.inStore(ctx, part); r != nil {
			return s.keep(r)
		}
		return s.find(ctx, part)
	})
}

// naming returns a record that gives the path this NAR hash. Nix keeps NAR
// URLs for 30 days, so they must resolve when nothing is kept here.
func (s *Server) naming(ctx context.Context, part nix.HashPart, hash nix.NARHash) (*rendered, error) {
	r, err := s.coalesce(ctx, narinfo.NARURL(part, hash), func(ctx context.Context) (*rendered, error) {
		if r := s.records.naming(part, hash); r != nil {
			return r, nil
		}
		if r := s.inStore(ctx, part); r != nil && r.info.NARHash == hash {
			return s.keep(r)
		}
		return s.find(ctx, part)
	})
	if err == nil && r.info.NARHash != hash {
		return nil, narstore.ErrNotFound
	}
	return r, err
}

// coalesce runs find once for all who ask for key at the same time, under the
// deadline and not under the context of whoever came first. Who comes after a
// change of the setup does not join those from before.
func (s *Server) coalesce(ctx context.Context, key string, find func(context.Context) (*rendered, error)) (found *rendered, err error) {
	now := s.setup()
	ctx, cancel := context.WithTimeout(ctx, now.Deadline)
	defer cancel()
	ctx, span := tracing.Start(ctx, "lookup")
	defer func() { traceRecord(span, found, err) }()
	flight := s.flights.DoChan(strconv.FormatUint(now.generation, 10)+"/"+key, func() (any, error) {
		s.tasks.begin()
		defer s.tasks.end()
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), now.Deadline)
		defer cancel()
		if err := s.lookups.Acquire(own, 1); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		defer s.lookups.Release(1)
		return find(own)
	})
	select {
	case res := <-flight:
		span.Bool("nar_p2p.shared", res.Shared)
		if r, ok := res.Val.(*rendered); ok && res.Err == nil {
			return r, nil
		}
		return nil, res.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// find asks upstreams and peers. A definite absence is remembered for a moment;
// ignorance is not: whoever asks next may have more luck.
func (s *Server) find(ctx context.Context, part nix.HashPart) (*rendered, error) {
	if _, known := s.absent.get(part); known {
		return nil, narstore.ErrNotFound
	}
	asked := s.setup()
	r, definite := s.search(ctx, part, everybody)
	r = s.settle(r)
	switch {
	case r == nil && definite:
		s.absent.put(part, struct{}{}, keepAbsent)
		if s.setup() != asked {
			s.absent.remove(part) // others may have it
		}
		return nil, narstore.ErrNotFound
	case r == nil:
		return nil, ErrUnknown
	case r.upstream != "" || s.setup().keys.Signed(r.info):
		return s.keep(r)
	}
	// Without signatures the size is the word of whoever sent the record. Of
	// an upstream it is taken; a peer with a wrong one would keep the path
	// from us for as long as the record is kept.
	s.absent.remove(part)
	return render(r), nil
}

// keep makes r the current record of its hash part, if it is still believed.
func (s *Server) keep(r *record) (*rendered, error) {
	held := s.records.put(r)
	if held == nil {
		return nil, ErrUnknown
	}
	s.absent.remove(r.info.StorePath.HashPart())
	return held, nil
}

// inStore returns the record of a path in the local store, if keys that are
// trusted have signed it. Nobody is told that the store has it.
func (s *Server) inStore(ctx context.Context, part nix.HashPart) *record {
	path, err := s.askStore(ctx, part)
	if err != nil {
		return nil
	}
	return s.believedOf(path)
}

var errSilentStore = errors.New("the store does not answer")

// askStore returns what the store knows of a path. A store that does not
// answer, such as a nix-daemon that hangs, is not waited for: the upstreams are
// still to be asked.
func (s *Server) askStore(ctx context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	switch {
	case s.store == nil:
		return nil, narstore.ErrNotFound
	case !s.storeAsks.TryAcquire(1):
		return nil, errSilentStore
	}
	s.tasks.begin()
	_, span := tracing.Start(ctx, "store")
	defer span.End(nil)
	type answer struct {
		path *narstore.PathInfo
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		defer s.tasks.end()
		defer s.storeAsks.Release(1)
		path, err := s.store.Info(ctx, part)
		answers <- answer{path, err}
	}()
	patience := time.NewTimer(storePatience)
	defer patience.Stop()
	select {
	case a := <-answers:
		span.Bool("nar_p2p.held", a.err == nil)
		return a.path, a.err
	case <-patience.C:
		s.log.Debug("the store does not answer", zap.Stringer("hashPart", part))
		return nil, errSilentStore
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// queueRefresh lets Run ask the upstreams again for a record.
func (s *Server) queueRefresh(part nix.HashPart) {
	select {
	case s.refresh <- part:
	default: // the next request queues it again
	}
}

// revalidate renews records until ctx ends.
func (s *Server) revalidate(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case part := <-s.refresh:
			s.renew(ctx, part)
		}
	}
}

// renew asks the upstreams for a record once more. An upstream's 404 does not
// undo what was signed.
func (s *Server) renew(ctx context.Context, part nix.HashPart) {
	old := s.records.current(part)
	if old == nil || !old.stale() {
		return // somebody was faster
	}
	ctx, cancel := context.WithTimeout(ctx, s.setup().Deadline)
	defer cancel()
	r, _ := s.search(ctx, part, nobody)
	if r == nil || s.outlives(old.record, r) {
		again := *old.record
		again.checked = time.Now()
		r = &again
	}
	if _, err := s.keep(r); err != nil {
		return
	}
	s.log.Debug("record revalidated", zap.Stringer("storePath", r.info.StorePath))
}

// mayTellStrangers reports whether strangers may be asked about the NAR.
func (s *Server) mayTellStrangers(r *record) bool { return !r.private && s.askable(r.info) }
