package routing

import (
	"context"
	"time"
)

// Progress is how far announcing has come: in the public network, to the
// internet.
type Progress struct {
	// Keys is how many keys are to be announced; each path has two, but paths
	// with the same NAR share one.
	Keys int
	// Waiting is how many of them wait for their announcement. It is all of them
	// until the node has an address and has been online.
	Waiting int
	// Regions is how many regions of the DHT wait for their announcement or have
	// it now.
	Regions int
	// Skipped is how many further keys the budget does not allow, and Resting
	// how many wait for a later day: the metadata keys of paths that are no
	// roots take turns where there is a budget.
	Skipped, Resting int
	// SentBytes is the upload that records have taken since the start.
	SentBytes int64
	// Swept is when the round began in which everything is announced again that has
	// been before, and Next when the next region of it is due; zero where there is
	// none.
	Swept, Next time.Time
}

// Progress asks the provider.
func (a *Announcer) Progress(ctx context.Context) (Progress, error) {
	a.mu.Lock()
	sweepers := a.sweepers
	a.mu.Unlock()
	if len(sweepers) == 0 {
		return Progress{}, nil
	}
	return sweepers[0].progress(ctx)
}

func (s *sweeper) progress(ctx context.Context) (Progress, error) {
	p, err := s.source.progress(ctx)
	if err != nil {
		return Progress{}, err
	}
	p.SentBytes = s.place.sentBytes()
	sweep := s.provider.Load()
	if sweep == nil {
		p.Waiting = p.Keys
		return p, nil
	}
	stats, err := sweep.Stats(ctx)
	if err != nil {
		return Progress{}, err
	}
	waiting := int(s.waiting.Load() + stats.Queues.PendingKeyProvides)
	waiting += stats.Operations.Ongoing.KeyProvides + stats.Operations.Ongoing.KeyReprovides
	sent := stats.Operations.Past
	if stats.Connectivity.Status == "offline" || s.first && sent.KeysProvided+sent.KeysFailed == 0 {
		waiting = p.Keys
	}
	p.Waiting = min(waiting, p.Keys)
	p.Swept, p.Next = stats.Timing.CycleStart, stats.Schedule.NextReprovideAt
	// A worker may be about to find out what there is to send in its region.
	p.Regions = int(stats.Queues.PendingRegionProvides+stats.Queues.PendingRegionReprovides) + stats.Workers.Active
	return p, nil
}
