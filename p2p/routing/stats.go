package routing

import (
	"context"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
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
	// Regions is how many regions of the DHT wait for their announcement.
	Regions int
}

// Progress asks the provider.
func (a *Announcer) Progress(ctx context.Context) (Progress, error) {
	a.mu.Lock()
	keys := a.keys
	var sweep *provider.SweepingProvider
	missed := 0
	if len(a.sweepers) > 0 {
		sweep, missed = a.sweepers[0].provider, len(a.sweepers[0].missed)
	}
	a.mu.Unlock()
	if keys == nil {
		return Progress{}, nil
	}
	n, err := keys.Size(ctx)
	if err != nil {
		return Progress{}, err
	}
	if sweep == nil {
		return Progress{Keys: n, Waiting: n}, nil
	}
	stats, err := sweep.Stats(ctx)
	if err != nil {
		return Progress{}, err
	}
	waiting := missed + int(stats.Queues.PendingKeyProvides) + stats.Operations.Ongoing.KeyProvides + stats.Operations.Ongoing.KeyReprovides
	if stats.Connectivity.Status == "offline" || stats.Schedule.Regions == 0 {
		waiting = n
	}
	return Progress{
		Keys:    n,
		Waiting: min(waiting, n),
		Regions: int(stats.Queues.PendingRegionProvides + stats.Queues.PendingRegionReprovides),
	}, nil
}

func namespaced(store ds.Batching, name string) ds.Batching {
	return namespace.Wrap(store, ds.NewKey(name))
}
