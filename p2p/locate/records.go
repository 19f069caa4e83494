package locate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

var (
	errStopped = errors.New("locate: stopped")
	errTooMany = errors.New("locate: too much is looked for already")
)

// Narinfos gives the records of a store path as peers answer, each peer once,
// until all have answered or ctx ends. They are unverified. With strangers false
// only allow-listed peers are asked. Whoever has helped lately is asked first,
// then the other sources, then those that a walk through the DHT finds.
func (f *Finder) Narinfos(ctx context.Context, part nix.HashPart, strangers bool) iter.Seq[*narinfo.Info] {
	return func(yield func(*narinfo.Info) bool) {
		e, err := f.want(ctx, recordKey(part, strangers))
		if err != nil {
			f.log.Debug("cannot look for a narinfo", zap.Stringer("hashPart", part), zap.Error(err))
			return
		}
		defer f.leave(e)
		for given := 0; ; {
			holders, changed, ended := f.look(e)
			for ; given < len(holders); given++ {
				if !yield(holders[given].record) {
					return
				}
			}
			if ended {
				return
			}
			select {
			case <-changed:
			case <-f.stopped:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// want returns the entry of what is looked for, or was found, for one more who
// waits. Call leave with it.
func (f *Finder) want(ctx context.Context, k key) (*entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("locate: %w", err)
	}
	select {
	case <-f.stopped:
		return nil, errStopped
	default:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entry(k)
	if _, wanted := f.wanted[e]; !wanted && len(f.wanted) >= maxWanted {
		return nil, errTooMany
	}
	f.wanted[e] = struct{}{}
	if deadline, ok := ctx.Deadline(); !ok {
		e.deadline = time.Time{}
	} else if e.waiters == 0 || !e.deadline.IsZero() && deadline.After(e.deadline) {
		e.deadline = deadline
	}
	e.waiters++
	e.glance = false
	if e.step == idle {
		f.begin(e, time.Now())
	}
	return e, nil
}

// leave is for whoever waits no longer, be it that all is found. What nobody
// else waits for is not looked for any longer.
func (f *Finder) leave(e *entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.waiters--; e.waiters == 0 {
		f.abandon(e)
	}
}
