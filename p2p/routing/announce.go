package routing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p-kad-dht/provider/keystore"
	mh "github.com/multiformats/go-multihash"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// A DHT is looked at after firstLook, and then ever more rarely up to lastLook,
// until it has a peer and this node an address to announce.
const (
	firstLook = 100 * time.Millisecond
	lastLook  = 5 * time.Second
)

// neverOffline keeps a provider from giving up on a network that does not
// answer. It would forget the keys that wait, and take no new ones: these would
// not be announced before the next cycle.
const neverOffline = 10 * 365 * 24 * time.Hour

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
}

// Announcer keeps the DHT informed of every path in a catalog: of its content
// key and its metadata key, as long as the path stays. Announcing is done by
// the sweeping provider, which sends all keys of a region of the DHT together.
//
// Nothing can be taken back: records live on in the DHT for up to 48 hours.
type Announcer struct {
	dht     *DHT
	catalog catalog
	store   ds.Batching
	log     *zap.Logger

	mu sync.Mutex
	// keys is what is announced, on disk; nil while Run does not run.
	keys keystore.Keystore
	// sweepers announce them, one in each table, the most important first.
	sweepers []*sweeper

	// paths counts the paths with a NAR hash; only Run's follower uses it.
	paths map[nix.NARHash]int
}

// NewAnnouncer returns an Announcer that keeps its notes in the datastore that
// cfg gives.
func NewAnnouncer(d *DHT, c catalog, cfg *Config, log *zap.Logger) *Announcer {
	return &Announcer{
		dht:     d,
		catalog: c,
		store:   cfg.Datastore("announced-" + cfg.Network),
		log:     log.Named("announce"),
		paths:   make(map[nix.NARHash]int),
	}
}

// sweeper announces in one table. The Announcer's mu guards all but the table.
type sweeper struct {
	table
	// provider is nil until it has started.
	provider *provider.SweepingProvider
	// missed holds the new keys that the provider does not take yet. One that
	// resumes looks after regions that are late, not after keys, and takes no key
	// before it knows the size of the network.
	missed map[string]struct{}
	// takes says that the provider gets keys directly.
	takes bool
}

// Run announces until ctx ends.
func (a *Announcer) Run(ctx context.Context) (err error) {
	keys, err := keystore.NewKeystore(namespaced(a.store, "keys"))
	if err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	a.mu.Lock()
	a.keys = keys
	a.mu.Unlock()
	defer func() { err = errors.Join(err, a.stop()) }()
	known, err := keys.Size(ctx)
	if err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	a.mu.Lock()
	for _, t := range a.dht.tables {
		a.sweepers = append(a.sweepers, &sweeper{table: t, missed: make(map[string]struct{})})
	}
	sweepers := a.sweepers
	a.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.follow(ctx) })
	for _, s := range sweepers {
		g.Go(func() error { return a.sweep(ctx, s, known > 0) })
	}
	return g.Wait()
}

// stop closes the providers and then the keystore that they use.
func (a *Announcer) stop() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, s := range a.sweepers {
		if s.provider != nil {
			errs = append(errs, s.provider.Close())
		}
	}
	errs = append(errs, a.keys.Close())
	a.keys, a.sweepers = nil, nil
	return errors.Join(errs...)
}

// sweep starts the provider of one table once it can do anything. Earlier it
// would drop whole batches with no more than a warning and not send them again
// before the next cycle, 22 hours later: a record without an address is not
// sent, and without a peer the size of the network cannot be measured.
//
// With resume set it goes on where an earlier one has ended; otherwise it
// announces all keys.
func (a *Announcer) sweep(ctx context.Context, s *sweeper, resume bool) error {
	err := poll(ctx, func() (bool, error) {
		return len(s.FilteredAddrs()) > 0 && s.RoutingTable().Size() > 0, nil
	})
	if err != nil {
		return err
	}
	if err := a.start(s, resume); err != nil || !resume {
		return err
	}
	err = poll(ctx, func() (bool, error) {
		stats, err := s.provider.Stats(ctx)
		return stats.Schedule.AvgPrefixLength >= 0, err // less: not known
	})
	if err != nil {
		return err
	}
	return a.handOver(s)
}

// poll returns once a condition holds, or with its error.
func poll(ctx context.Context, holds func() (bool, error)) error {
	for wait := firstLook; ; wait = min(wait*5/4, lastLook) {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// start starts a provider. It finds the keys that are in the keystore by itself.
func (a *Announcer) start(s *sweeper, resume bool) (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.provider, err = provider.New(
		provider.WithHost(s.Host()),
		provider.WithRouter(s.IpfsDHT),
		provider.WithMessageSender(s.MessageSender()),
		provider.WithReplicationFactor(s.BucketSize()),
		provider.WithSelfAddrs(s.FilteredAddrs),
		provider.WithAddLocalRecord(func(h mh.Multihash) error {
			return s.Provide(context.Background(), cid.NewCidV1(cid.Raw, h), false)
		}),
		provider.WithKeystore(a.keys),
		provider.WithDatastore(namespaced(a.store, "sweep"+s.name)),
		provider.WithDhtType(s.name),
		provider.WithResumeCycle(resume),
		provider.WithOfflineDelay(neverOffline),
	)
	if err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	if !resume {
		s.takes, s.missed = true, nil
	}
	a.log.Info("announcing", zap.String("table", s.name), zap.Int("peers", s.RoutingTable().Size()))
	return nil
}

// handOver gives a provider the keys that it has missed.
func (a *Announcer) handOver(s *sweeper) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	keys := make([]mh.Multihash, 0, len(s.missed))
	for key := range s.missed {
		keys = append(keys, mh.Multihash(key))
	}
	s.takes, s.missed = true, nil
	if err := s.provider.ProvideOnce(keys...); err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	return nil
}

// follow takes over the catalog's changes.
func (a *Announcer) follow(ctx context.Context) error {
	settled := false
	// Keys of an earlier run whose paths went while the node was down are
	// known only once all present paths are.
	present := make(map[string]struct{})
	return a.catalog.Follow(ctx, func(c share.Change) error {
		if err := a.apply(ctx, &c); err != nil {
			return err
		}
		if settled {
			return nil
		}
		for _, k := range c.Added {
			present[string(MetadataKey(k.HashPart).Hash())] = struct{}{}
		}
		if settled = c.Settled; !settled {
			return nil
		}
		err := a.keepOnly(ctx, present)
		present = nil
		return err
	})
}

// apply announces what was added and stops announcing what was removed.
func (a *Announcer) apply(ctx context.Context, c *share.Change) error {
	var gone, fresh []mh.Multihash
	for _, k := range c.Removed {
		gone = append(gone, MetadataKey(k.HashPart).Hash())
		if a.paths[k.NARHash]--; a.paths[k.NARHash] <= 0 {
			delete(a.paths, k.NARHash)
			gone = append(gone, ContentKey(k.NARHash).Hash())
		}
	}
	for _, k := range c.Added {
		fresh = append(fresh, MetadataKey(k.HashPart).Hash())
		if a.paths[k.NARHash]++; a.paths[k.NARHash] == 1 {
			fresh = append(fresh, ContentKey(k.NARHash).Hash())
		}
	}
	if len(gone) > 0 {
		if err := a.remove(ctx, gone); err != nil {
			return err
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return a.add(ctx, fresh)
}

// add announces those of the keys that are new. No key may be given twice: the
// keystore would count it twice.
func (a *Announcer) add(ctx context.Context, keys []mh.Multihash) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	keys, err := a.keys.Put(ctx, keys...)
	if err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	for _, s := range a.sweepers {
		if !s.takes {
			for _, key := range keys {
				s.missed[string(key)] = struct{}{}
			}
		}
		if s.provider == nil {
			continue
		}
		if err := s.provider.AddToSchedule(keys...); err != nil {
			return fmt.Errorf("routing: %w", err)
		}
		if !s.takes {
			continue
		}
		if err := s.provider.ProvideOnce(keys...); err != nil {
			return fmt.Errorf("routing: %w", err)
		}
	}
	return nil
}

// keepOnly drops all keys but those of the paths that there are. It does not use
// the resettable keystore, whose worker blocks for ever if the context of a
// reset ends at the wrong moment.
func (a *Announcer) keepOnly(ctx context.Context, present map[string]struct{}) error {
	all, err := a.keys.Get(ctx, "")
	if err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	for h := range a.paths {
		present[string(ContentKey(h).Hash())] = struct{}{}
	}
	stale := slices.DeleteFunc(all, func(key mh.Multihash) bool {
		_, ok := present[string(key)]
		return ok
	})
	if len(stale) == 0 {
		return nil
	}
	a.log.Debug("no longer announced", zap.Int("keys", len(stale)))
	return a.remove(ctx, stale)
}

// remove stops announcing keys.
func (a *Announcer) remove(ctx context.Context, keys []mh.Multihash) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.sweepers {
		for _, key := range keys {
			delete(s.missed, string(key))
		}
		if s.provider == nil {
			continue
		}
		if err := s.provider.StopProviding(keys...); err != nil {
			return fmt.Errorf("routing: %w", err)
		}
	}
	if err := a.keys.Delete(ctx, keys...); err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	return nil
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
