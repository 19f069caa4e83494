package substituter

import (
	"context"
	"time"

	"go.uber.org/zap"

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

// Lookup returns the record of a path in the form in which Nix gets it, and
// whether strangers may be asked about its NAR. The error may be
// narstore.ErrNotFound. It takes no longer than the deadline.
func (s *Server) Lookup(ctx context.Context, part nix.HashPart) (info *narinfo.Info, strangers bool, err error) {
	r, err := s.lookup(ctx, part)
	if err != nil {
		return nil, false, err
	}
	return r.forNix(), s.mayTellStrangers(r), nil
}

// Present takes note that paths have come into being, or signatures of them:
// that they were absent a moment ago means nothing any more.
func (s *Server) Present(parts ...nix.HashPart) {
	for _, part := range parts {
		s.absent.remove(part)
	}
}

// lookup returns the current record of a hash part.
func (s *Server) lookup(ctx context.Context, part nix.HashPart) (*record, error) {
	return s.coalesce(ctx, part.String(), func(ctx context.Context) *record {
		if r := s.records.current(part); r != nil {
			if time.Since(r.fetched) > refreshAfter {
				s.queueRefresh(part)
			}
			return r
		}
		if r := s.inStore(ctx, part); r != nil {
			s.records.put(r)
			return r
		}
		return s.find(ctx, part)
	})
}

// naming returns a record that gives the path this NAR hash. Nix keeps NAR
// URLs for 30 days, so they must resolve when nothing is kept here.
func (s *Server) naming(ctx context.Context, part nix.HashPart, hash nix.NARHash) (*record, error) {
	r, err := s.coalesce(ctx, narinfo.NARURL(part, hash), func(ctx context.Context) *record {
		if r := s.records.naming(part, hash); r != nil {
			return r
		}
		if r := s.inStore(ctx, part); r != nil && r.info.NARHash == hash {
			s.records.put(r)
			return r
		}
		return s.find(ctx, part)
	})
	if err == nil && r.info.NARHash != hash {
		return nil, narstore.ErrNotFound
	}
	return r, err
}

// coalesce runs find once for all who ask for key at the same time, under the
// deadline and not under the context of whoever came first.
func (s *Server) coalesce(ctx context.Context, key string, find func(context.Context) *record) (*record, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Deadline)
	defer cancel()
	flight := s.flights.DoChan(key, func() (any, error) {
		s.tasks.begin()
		defer s.tasks.end()
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Deadline)
		defer cancel()
		if err := s.lookups.Acquire(own, 1); err != nil {
			return (*record)(nil), err
		}
		defer s.lookups.Release(1)
		return find(own), nil
	})
	select {
	case res := <-flight:
		r, ok := res.Val.(*record)
		if res.Err != nil || !ok || r == nil {
			return nil, narstore.ErrNotFound
		}
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// find asks upstreams and peers.
func (s *Server) find(ctx context.Context, part nix.HashPart) *record {
	if _, known := s.absent.get(part); known {
		return nil
	}
	r, definite := s.search(ctx, part, everybody)
	r = s.settle(r)
	switch {
	case r != nil:
		s.absent.remove(part)
		// Without signatures the size is the word of whoever sent the record. Of
		// an upstream it is taken; a peer with a wrong one would keep the path
		// from us for as long as the record is kept.
		if r.upstream != "" || s.keys.Signed(r.info) {
			s.records.put(r)
		}
	case definite:
		s.absent.put(part, struct{}{}, keepAbsent)
	}
	return r
}

// inStore returns the record of a path in the local store, if keys that are
// trusted have signed it. Nobody is told that the store has it.
func (s *Server) inStore(ctx context.Context, part nix.HashPart) *record {
	if path := s.askStore(ctx, part); path != nil {
		return s.believedOf(path)
	}
	return nil
}

// askStore returns what the store knows of a path, or nil. A store that does
// not answer, such as a nix-daemon that hangs, is not waited for: the upstreams
// are still to be asked.
func (s *Server) askStore(ctx context.Context, part nix.HashPart) *narstore.PathInfo {
	if s.store == nil || !s.storeAsks.TryAcquire(1) {
		return nil
	}
	s.tasks.begin()
	answer := make(chan *narstore.PathInfo, 1)
	go func() {
		defer s.tasks.end()
		defer s.storeAsks.Release(1)
		path, err := s.store.Info(ctx, part)
		if err != nil {
			path = nil
		}
		answer <- path
	}()
	patience := time.NewTimer(storePatience)
	defer patience.Stop()
	select {
	case path := <-answer:
		return path
	case <-patience.C:
		s.log.Debug("the store does not answer", zap.Stringer("hashPart", part))
	case <-ctx.Done():
	}
	return nil
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
	if old == nil || time.Since(old.fetched) <= refreshAfter {
		return // somebody was faster
	}
	ctx, cancel := context.WithTimeout(ctx, s.Deadline)
	defer cancel()
	r, _ := s.search(ctx, part, nobody)
	if r == nil || s.outlives(old, r) {
		r = old
		r.fetched = time.Now()
	}
	s.records.put(r)
	s.log.Debug("record revalidated", zap.Stringer("storePath", r.info.StorePath))
}

// mayTellStrangers reports whether strangers may be asked about the NAR.
func (s *Server) mayTellStrangers(r *record) bool { return !r.private && s.askable(r.info) }
