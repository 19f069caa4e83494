package routing

import (
	"context"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
)

// Progress is how far announcing has come.
type Progress struct {
	// Keys is how many keys are to be announced; each path has two, but paths
	// with the same NAR share one.
	Keys int
	// Waiting is how many of them wait for their first announcement. It is all
	// of them while the node is offline.
	Waiting int
	// Regions is how many regions of the DHT wait for their announcement.
	Regions int
}

// Progress asks the providers.
func (a *Announcer) Progress(ctx context.Context) (Progress, error) {
	a.mu.Lock()
	keys, sweeps := a.keys, a.sweeps
	a.mu.Unlock()
	if keys == nil {
		return Progress{}, nil
	}
	n, err := keys.Size(ctx)
	if err != nil {
		return Progress{}, err
	}
	p := Progress{Keys: n}
	if len(sweeps) == 0 {
		p.Waiting = n
	}
	for _, s := range sweeps {
		stats, err := s.Stats(ctx)
		if err != nil {
			return Progress{}, err
		}
		waiting := int(stats.Queues.PendingKeyProvides) + stats.Operations.Ongoing.KeyProvides + stats.Operations.Ongoing.KeyReprovides
		if stats.Connectivity.Status == "offline" || stats.Schedule.Regions == 0 {
			waiting = n
		}
		p.Waiting = max(p.Waiting, min(waiting, n))
		p.Regions = max(p.Regions, int(stats.Queues.PendingRegionProvides+stats.Queues.PendingRegionReprovides))
	}
	return p, nil
}

func namespaced(store ds.Batching, name string) ds.Batching {
	return namespace.Wrap(store, ds.NewKey(name))
}
