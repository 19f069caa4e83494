package vouch

import (
	"context"
	"errors"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// follower is one call of Follow.
type follower struct {
	// fresh holds the paths that were signed and not yet told; Store.mu guards
	// it. However slow the follower is, each path is in it once.
	fresh map[nix.HashPart]struct{}
	// wake holds one token while there may be some.
	wake chan struct{}
}

// tell has the followers look at a path that was signed.
func (s *Store) tell(part nix.HashPart) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.followers {
		f.fresh[part] = struct{}{}
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// take empties the follower's list.
func (s *Store) take(f *follower) map[nix.HashPart]struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := f.fresh
	f.fresh = make(map[nix.HashPart]struct{})
	return fresh
}

// Follow implements narstore.Store. What is signed is told at once.
func (s *Store) Follow(ctx context.Context, f func(narstore.Update) error) error {
	me := &follower{fresh: make(map[nix.HashPart]struct{}), wake: make(chan struct{}, 1)}
	s.mu.Lock()
	s.followers[me] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.followers, me)
	}()

	// telling is held from the reading of a path to the end of telling of it, so
	// that a removal is never told before it.
	var telling sync.Mutex
	settled := false
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return s.store.Follow(ctx, func(u narstore.Update) error {
			telling.Lock()
			defer telling.Unlock()
			added := make([]*narstore.PathInfo, len(u.Added))
			for i, info := range u.Added {
				added[i] = s.withOwn(info)
			}
			u.Added, settled = added, u.Settled
			return f(u)
		})
	})
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-me.wake:
			}
			telling.Lock()
			err := s.tellFresh(ctx, me, settled, f)
			telling.Unlock()
			if err != nil {
				return err
			}
		}
	})
	return group.Wait()
}

// tellFresh tells one follower of the paths that were signed.
func (s *Store) tellFresh(ctx context.Context, me *follower, settled bool, f func(narstore.Update) error) error {
	u := narstore.Update{Settled: settled}
	for part := range s.take(me) {
		info, err := s.Info(ctx, part)
		switch {
		case err == nil:
			u.Added = append(u.Added, info)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, narstore.ErrNotFound): // it has gone meanwhile
		default:
			s.log.Warn("signed path cannot be read; it is told of after the next start", zap.Stringer("hashPart", part), zap.Error(err))
		}
	}
	if len(u.Added) == 0 {
		return nil
	}
	return f(u)
}
