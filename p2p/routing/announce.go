package routing

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p-kad-dht/provider/keystore"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// Provide tells the DHT of a few keys while somebody waits for the outcome: at
// most maxProvides at once, for at most provideTimeout each. A lookup on the
// public network takes seconds.
const (
	maxProvides    = 8
	provideTimeout = time.Minute
)

// catalog is the part of share.Catalog that is announced.
type catalog interface {
	Follow(ctx context.Context, f func(share.Change) error) error
	// Held reports whether some path has this NAR.
	Held(h nix.NARHash) (root chunk.Root, rootKnown, held bool)
}

// Announcer keeps the DHT informed of the paths in a catalog, as long as they
// stay: of their content keys and their metadata keys; on the public network of
// as many as the budget allows, by value. Announcing is done by the sweeping
// provider, which sends all keys of a region of the DHT together.
//
// Nothing can be taken back: records live on in the DHT for up to 48 hours.
type Announcer struct {
	dht     *DHT
	catalog catalog
	store   ds.Batching
	log     *zap.Logger
	// perDay is the budget in bytes, or 0; it is for the first table.
	perDay int64

	// settled is closed once the catalog has told of all paths.
	settled chan struct{}

	// changing is held while keys change, and taken before mu.
	changing sync.Mutex

	mu sync.Mutex
	// sweepers announce, one in each table, the most important first; nil while
	// Run does not run.
	sweepers []*sweeper
}

// NewAnnouncer returns an Announcer that keeps its notes in the datastore that
// cfg gives.
func NewAnnouncer(d *DHT, c catalog, cfg *Config, log *zap.Logger) *Announcer {
	return &Announcer{
		dht:     d,
		catalog: c,
		store:   cfg.Datastore("announced-" + cfg.Network),
		log:     log.Named("announce"),
		perDay:  cfg.AnnounceBudget,
		settled: make(chan struct{}),
	}
}

// Run announces until ctx ends. It runs once.
func (a *Announcer) Run(ctx context.Context) (err error) {
	var sweepers []*sweeper
	defer func() {
		a.mu.Lock()
		a.sweepers = nil
		a.mu.Unlock()
		for _, s := range sweepers {
			err = errors.Join(err, s.close())
		}
	}()
	for i, t := range a.dht.tables {
		s, err := openSweeper(ctx, t, a.store, a.log)
		if err != nil {
			return err
		}
		s.source = everything{catalog: a.catalog, keys: s.keys}
		if i == 0 && a.perDay > 0 {
			s.source = newBudget(s, a.perDay, &a.dht.sightings, namespaced(a.store, "providers"))
		}
		sweepers = append(sweepers, s)
	}
	a.mu.Lock()
	a.sweepers = sweepers
	a.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.follow(ctx) })
	for _, s := range sweepers {
		g.Go(func() error { return a.sweep(ctx, s) })
	}
	return g.Wait()
}

// follow takes over the catalog's changes.
func (a *Announcer) follow(ctx context.Context) error {
	settled := false
	return a.catalog.Follow(ctx, func(c share.Change) error {
		a.changing.Lock()
		defer a.changing.Unlock()
		for _, s := range a.sweepers {
			d, err := s.source.change(ctx, &c)
			if err == nil {
				err = s.apply(ctx, d)
			}
			if err != nil {
				return err
			}
		}
		if c.Settled && !settled {
			settled = true
			close(a.settled)
		}
		return nil
	})
}

// sweep starts a table's sweeper when everything is known that it needs.
func (a *Announcer) sweep(ctx context.Context, s *sweeper) error {
	select {
	case <-a.settled:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.awaitNetwork(ctx); err != nil {
		return err
	}
	if err := a.start(ctx, s); err != nil {
		return err
	}
	if err := s.resumed(ctx); err != nil {
		return err
	}
	if err := a.handOver(s); err != nil {
		return err
	}
	if b, ok := s.source.(*budget); ok {
		return a.takeTurns(ctx, s, b)
	}
	return nil
}

func (a *Announcer) start(ctx context.Context, s *sweeper) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	if b, ok := s.source.(*budget); ok {
		if err := s.apply(ctx, b.measure()); err != nil {
			return err
		}
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	return s.start()
}

func (a *Announcer) handOver(s *sweeper) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	return s.handOver()
}

// takeTurns has the keys of a budget chosen anew when a cycle begins.
func (a *Announcer) takeTurns(ctx context.Context, s *sweeper, b *budget) error {
	ticker := time.NewTicker(turnInterval)
	defer ticker.Stop()
	for last := cycleOf(time.Now()); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		now := cycleOf(time.Now())
		if now == last {
			continue
		}
		last = now
		a.changing.Lock()
		err := s.apply(ctx, b.measure())
		a.changing.Unlock()
		if err != nil {
			return err
		}
	}
}

// everything announces both keys of each path.
type everything struct {
	catalog catalog
	keys    keystore.Keystore
}

// change implements source.
func (e everything) change(_ context.Context, c *share.Change) (d delta, err error) {
	parts := make(map[nix.HashPart]struct{}, len(c.Removed))
	for _, k := range c.Removed {
		parts[k.HashPart] = struct{}{}
		// Another path may have the same NAR. If it goes too, that is told later.
		if _, _, held := e.catalog.Held(k.NARHash); !held {
			d.gone = append(d.gone, ContentKey(k.NARHash).Hash())
		}
	}
	nars := make(map[nix.NARHash]struct{}, len(c.Added))
	for _, k := range c.Added {
		delete(parts, k.HashPart) // Told anew, with more to say of it.
		d.now = append(d.now, MetadataKey(k.HashPart).Hash())
		if _, ok := nars[k.NARHash]; !ok {
			nars[k.NARHash] = struct{}{}
			d.now = append(d.now, ContentKey(k.NARHash).Hash())
		}
	}
	for part := range parts {
		d.gone = append(d.gone, MetadataKey(part).Hash())
	}
	return d, nil
}

// progress implements source.
func (e everything) progress(ctx context.Context) (Progress, error) {
	n, err := e.keys.Size(ctx)
	return Progress{Keys: n}, err
}

// Provide announces both keys of each path now and returns once the DHT has
// them, or an error that says which it has not. Whether they stay announced is
// up to the catalog.
func (a *Announcer) Provide(ctx context.Context, paths ...share.Key) error {
	var mu sync.Mutex
	var errs []error
	var g errgroup.Group
	g.SetLimit(maxProvides)
	for _, k := range paths {
		for name, key := range map[string]cid.Cid{"content": ContentKey(k.NARHash), "metadata": MetadataKey(k.HashPart)} {
			g.Go(func() error {
				if err := a.dht.provide(ctx, key); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, fmt.Errorf("announce %s of %v (%v): %w", name, k.HashPart, key, err))
				}
				return nil
			})
		}
	}
	return errors.Join(g.Wait(), errors.Join(errs...))
}

// provide sends the key to one table at least.
func (d *DHT) provide(ctx context.Context, key cid.Cid) error {
	ctx, cancel := context.WithTimeout(ctx, provideTimeout)
	defer cancel()
	var errs []error
	sent := false
	for _, t := range d.tables {
		err := errNoPeers
		if t.RoutingTable().Size() > 0 {
			err = t.Provide(ctx, key, true)
		}
		sent = sent || err == nil
		errs = append(errs, err)
	}
	if sent {
		return nil
	}
	return errors.Join(errs...)
}

var errNoPeers = errors.New("no peer of the DHT is known")
