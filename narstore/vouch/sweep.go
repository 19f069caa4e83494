package vouch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/internal/follow"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// firstSweep leaves the start of the node alone. It comes soon enough for a
	// machine that is switched off at night.
	firstSweep = 10 * time.Minute
	sweepEvery = 24 * time.Hour
	// keepAbsent is how long signatures are kept of a path that is not in the
	// store. So what was collected as garbage and is built again has them back,
	// and a store that was not mounted for a while costs nothing.
	keepAbsent = 30 * 24 * time.Hour
	// sureAfter is how long it must have seemed to be that long: who has signed may
	// not have the key at hand any more, and a clock may be years ahead until it is
	// set.
	sureAfter = 12 * time.Hour
)

// Run drops the signatures of paths that have long left the store, until ctx
// ends.
func (s *Store) Run(ctx context.Context) error {
	for pause := firstSweep; ; pause = sweepEvery {
		if err := follow.Wait(ctx, pause); err != nil {
			return err
		}
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("signatures of absent paths not dropped", zap.Error(err))
		}
	}
}

func (s *Store) sweep(ctx context.Context) error {
	return s.bucket.Each(ctx, func(key, _ []byte) error {
		if len(key) != len(nix.HashPart{}) {
			return fmt.Errorf("key of %d bytes", len(key))
		}
		part := nix.HashPart(key)
		info, err := s.store.Info(ctx, part)
		if err != nil && !errors.Is(err, narstore.ErrNotFound) {
			return nil // whether it is there will show another day
		}
		return s.age(part, info)
	})
}

// age notes whether the path that an entry is about is in the store; info is
// nil where none is. An entry that has been about none for too long goes.
func (s *Store) age(part nix.HashPart, info *narstore.PathInfo) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	e := s.read(part)
	switch {
	case e == nil:
		return nil
	case info != nil && slices.Equal(e.Fingerprint, digest(info)):
		if e.Absent.IsZero() {
			return nil
		}
		e.Absent, e.Overdue = time.Time{}, time.Time{}
	case e.Absent.IsZero(), e.Absent.After(time.Now()):
		e.Absent, e.Overdue = time.Now(), time.Time{}
	case time.Since(e.Absent) < keepAbsent:
		if e.Overdue.IsZero() {
			return nil
		}
		e.Overdue = time.Time{}
	case e.Overdue.IsZero():
		e.Overdue = time.Now()
	case time.Since(e.Overdue).Abs() < sureAfter:
		return nil
	default:
		return s.bucket.Delete(part[:])
	}
	return s.write(part, e)
}
