package main

import (
	"context"
	"errors"
	"slices"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p-kad-dht/provider/keystore"
	mh "github.com/multiformats/go-multihash"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/routing/sim"
)

const (
	addProvider = pb.Message_ADD_PROVIDER
	findNode    = pb.Message_FIND_NODE
)

// node is a node of nar-p2p in the simulation, as far as its routing goes.
type node struct {
	host *sim.Host
	cfg  routing.Config
	dht  *routing.DHT
}

// join makes a node that is a client of the DHT.
func (s *study) join() (*node, error) {
	store := dssync.MutexWrap(ds.NewMapDatastore())
	n := &node{host: s.network.NewHost(s.random)}
	n.cfg = routing.Config{
		Network: "sim", Role: routing.Client, Options: s.network.Options(),
		Datastore: func(name string) ds.Batching { return namespace.Wrap(store, ds.NewKey(name)) },
	}
	return n, n.start()
}

func (n *node) start() (err error) {
	n.dht, err = routing.Join(n.host, &n.cfg)
	return err
}

func (n *node) close() error { return n.dht.Close() }

// catalog tells of the same paths for ever.
type catalog []share.Key

func (c catalog) Follow(ctx context.Context, f func(share.Change) error) error {
	for batch := range slices.Chunk(c, 1024) {
		if err := f(share.Change{Added: batch}); err != nil {
			return err
		}
	}
	if err := f(share.Change{Settled: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// Held reports that the paths stay.
func (catalog) Held(nix.NARHash) (chunk.Root, bool, bool) { return chunk.Root{}, false, true }

// announce lets a new node announce paths as nar-p2p does, and prints a row.
func (s *study) announce(ctx context.Context, held []share.Key) (*node, error) {
	n, err := s.join()
	if err == nil {
		err = n.announce(ctx, held, 0)
	}
	if err != nil {
		return nil, err
	}
	return n, s.report("nar-p2p", n.host, cids(held))
}

// announce runs the announcer until nothing waits, and for a time longer.
func (n *node) announce(ctx context.Context, held []share.Key, longer time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	a := routing.NewAnnouncer(n.dht, catalog(held), &n.cfg, zap.NewNop())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	err := poll(ctx, func() (bool, error) {
		p, err := a.Progress(ctx)
		return p.Keys > 0 && p.Waiting == 0 && p.Regions == 0, err
	})
	time.Sleep(longer)
	cancel()
	if end := <-ended; !errors.Is(end, context.Canceled) {
		err = errors.Join(err, end)
	}
	return err
}

func poll(ctx context.Context, holds func() (bool, error)) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// restart starts a node once more that has announced its paths, and returns how
// many records it sends again.
func (s *study) restart(ctx context.Context, n *node, held []share.Key) (int, error) {
	if err := n.close(); err != nil {
		return 0, err
	}
	before := n.host.Traffic().Messages[addProvider]
	if err := n.start(); err != nil {
		return 0, err
	}
	err := n.announce(ctx, held, 10*time.Second)
	return n.host.Traffic().Messages[addProvider] - before, errors.Join(err, n.close())
}

// announceBare announces paths by the sweeping provider alone, as it is.
func (s *study) announceBare(ctx context.Context, held []share.Key) error {
	host := s.network.NewHost(s.random)
	d, err := dht.New(host, append(s.network.Options(),
		dht.ProtocolPrefix(sim.Prefix), dht.Mode(dht.ModeClient), dht.DisableValues())...)
	if err != nil {
		return err
	}
	store := dssync.MutexWrap(ds.NewMapDatastore())
	keys, err := keystore.NewKeystore(store)
	if err != nil {
		return errors.Join(err, d.Close())
	}
	var hashes []mh.Multihash
	for _, c := range cids(held) {
		hashes = append(hashes, c.Hash())
	}
	if _, err := keys.Put(ctx, hashes...); err != nil {
		return errors.Join(err, keys.Close(), d.Close())
	}
	err = poll(ctx, func() (bool, error) { return d.RoutingTable().Size() > 0, nil })
	if err != nil {
		return errors.Join(err, keys.Close(), d.Close())
	}
	p, err := provider.New(provider.WithHost(host), provider.WithRouter(d), provider.WithMessageSender(d.MessageSender()),
		provider.WithSelfAddrs(d.FilteredAddrs), provider.WithKeystore(keys),
		provider.WithDatastore(dssync.MutexWrap(ds.NewMapDatastore())))
	if err != nil {
		return errors.Join(err, keys.Close(), d.Close())
	}
	err = poll(ctx, func() (bool, error) {
		stats, err := p.Stats(ctx)
		return stats.Operations.Past.KeysProvided >= int64(len(hashes)) && stats.Workers.Active == 0, err
	})
	if err == nil {
		err = s.report("the provider alone", host, cids(held))
	}
	return errors.Join(err, p.Close(), keys.Close(), d.Close())
}
