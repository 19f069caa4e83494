// Package follow is what the Follow methods of the stores have in common.
//
// A store lists itself again and again, in pages, into a Follower. Its Ledger
// turns the listings into changes, and its Pace bounds what they cost.
package follow

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// maxPause is the longest pause between tries while a store cannot be read.
	maxPause = time.Minute
	// maxNamed is how many malformed records a warning names.
	maxNamed = 5
)

// Record is one record of a store, well-formed or not.
type Record struct {
	// Label names a malformed record.
	Label string
	Info  *narstore.PathInfo
	// Sum is a checksum of everything that can change about the path.
	Sum uint64
	// Err says why the record is malformed, and is passed over.
	Err error
}

// Page is part of a listing: the records in it that the Ledger has not Seen.
type Page struct {
	Records []Record
	// Complete is true at the end of a listing that began with Ledger.Begin.
	Complete bool
	// End is true at the end of any listing.
	End bool
}

// Stop is an error that ends Run.
type Stop struct{ Err error }

func (s Stop) Error() string { return s.Err.Error() }

// Follower is the state of one Follow. It is not safe for concurrent use.
type Follower struct {
	Ledger Ledger
	Pace   Pace

	f       func(narstore.Update) error
	log     *zap.Logger
	inF     time.Duration // spent in f
	settled bool
	warned  map[string]bool // labels of malformed records
}

// New returns the state of a Follow that calls f.
func New(f func(narstore.Update) error, log *zap.Logger) *Follower {
	return &Follower{
		Ledger: Ledger{told: make(map[nix.HashPart]entry)},
		f:      f,
		log:    log,
		warned: make(map[string]bool),
	}
}

// Run calls look, which looks for changes and tells of them, and then rests for
// the time that pause returns; until ctx ends or look returns a Stop, whose
// error Run returns. Any other error is logged, and look called again, more and
// more rarely.
func (f *Follower) Run(ctx context.Context, pause func() time.Duration, look func(context.Context) error) error {
	var rest time.Duration
	for healthy := true; ; {
		err := look(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if stop, ok := errors.AsType[Stop](err); ok {
			return stop.Err
		}
		switch {
		case err == nil:
			rest = pause()
		case healthy:
			rest = pause()
			f.log.Warn("the store cannot be read; trying again", zap.Error(err))
		default:
			rest = min(2*rest, maxPause)
		}
		if err == nil && !healthy {
			f.log.Info("the store can be read again")
		}
		healthy = err == nil
		if err := Wait(ctx, rest); err != nil {
			return err
		}
	}
}

// Tell notes the records of a page in the ledger, passes them on, and at the
// end of a complete listing what has been removed, too.
func (f *Follower) Tell(p Page) error {
	update := narstore.Update{Added: f.sift(p.Records)}
	if p.Complete {
		update.Removed = f.Ledger.sweep()
	}
	news := len(update.Added) > 0 || len(update.Removed) > 0 || p.End && !f.settled
	f.settled = f.settled || p.End
	update.Settled = f.settled
	if !news {
		return nil
	}
	start := time.Now()
	err := f.f(update)
	f.inF += time.Since(start)
	if err != nil {
		return Stop{err}
	}
	return nil
}

// Paced runs list, a complete listing, and sets the pace by what it took. A
// receiver that is slow does not count: it is no cost of the listing.
func (f *Follower) Paced(list func() error) error {
	start, inF := time.Now(), f.inF
	err := list()
	f.Pace.Done(time.Since(start) - (f.inF - inF))
	return err
}

// sift returns the well-formed records, and warns of the others, once of each.
func (f *Follower) sift(records []Record) []*narstore.PathInfo {
	infos := make([]*narstore.PathInfo, 0, len(records))
	var labels []string
	var errs []error
	for _, r := range records {
		switch {
		case r.Err == nil:
			f.Ledger.tell(r.Info.Path.HashPart(), r.Sum)
			infos = append(infos, r.Info)
		case !f.warned[r.Label]:
			f.warned[r.Label] = true
			labels = append(labels, r.Label)
			errs = append(errs, r.Err)
		}
	}
	if len(labels) > 0 {
		n := min(len(labels), maxNamed)
		f.log.Warn("malformed records in the store are passed over",
			zap.Int("count", len(labels)), zap.Strings("records", labels[:n]), zap.Errors("errors", errs[:n]))
	}
	return infos
}
