package routing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p-kad-dht/provider/keystore"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// A DHT is looked at after firstLook, and then ever more rarely up to lastLook,
// until it has a peer and this node an address to announce.
const (
	firstLook = 100 * time.Millisecond
	lastLook  = 5 * time.Second
)

// refreshPatience is how long announcing waits for the routing table to fill.
const refreshPatience = time.Minute

// neverOffline keeps a provider from giving up on a network that does not
// answer. It would forget the keys that wait, and take no new ones: these would
// not be announced before the next cycle.
const neverOffline = 10 * 365 * 24 * time.Hour

// keyBatch is how many keys are written at once.
const keyBatch = 4096

// source decides what a table is told. A method is not called before the one
// before it has returned, but for progress.
type source interface {
	// change returns what a change of the catalog changes about the keys.
	change(ctx context.Context, c *share.Change) (delta, error)
	// progress fills in how many keys there are.
	progress(ctx context.Context) (Progress, error)
}

// delta is a change of the keys that are to be announced.
type delta struct {
	// gone come first: they are announced no more.
	gone []mh.Multihash
	// now are announced at once where they are new, later in the course of a
	// cycle.
	now, later []mh.Multihash
}

// sweeper announces keys in one table, each once per cycle. Its methods must not
// be called at the same time, but for progress.
type sweeper struct {
	table
	source source
	store  ds.Batching
	log    *zap.Logger

	// keys is what is announced, on disk. first says that it was empty at first.
	keys  keystore.Keystore
	first bool
	// told holds the keys that were given until settle, if there are any of an
	// earlier run.
	told    []mh.Multihash
	settled bool

	place *placement
	// provider is nil until it has started.
	provider atomic.Pointer[provider.SweepingProvider]
	// addrs is what the node was last reached at.
	addrs atomic.Pointer[[]ma.Multiaddr]
	// missed holds the new keys that the provider does not take yet: one that
	// resumes looks after regions that are late, not after keys, and takes no
	// key before it knows the size of the network. nil: it takes them.
	missed map[string]struct{}
	// waiting is the number of missed keys.
	waiting atomic.Int64
}

// openSweeper opens the keys of an earlier run, of which there may be none.
func openSweeper(ctx context.Context, t table, store ds.Batching, log *zap.Logger) (*sweeper, error) {
	keys, err := keystore.NewKeystore(namespaced(store, "keys"+t.name))
	if err != nil {
		return nil, fmt.Errorf("routing: %w", err)
	}
	s := &sweeper{table: t, store: namespaced(store, "sweep"+t.name), log: log, keys: keys, place: newPlacement(t)}
	known, err := keys.Size(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("routing: %w", err), s.close())
	}
	if s.first = known == 0; !s.first {
		s.missed = make(map[string]struct{})
	}
	return s, nil
}

// close closes the provider and then the keystore that it uses.
func (s *sweeper) close() error {
	var err error
	if p := s.provider.Load(); p != nil {
		err = p.Close()
	}
	if err := errors.Join(err, s.keys.Close()); err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	return nil
}

// awaitNetwork waits until announcing can begin. Earlier the provider would drop
// whole batches with no more than a warning and not send them again before the
// next cycle: a record without an address is not sent, and without a peer the
// size of the network cannot be measured. And with a routing table that is nearly
// empty, lookups may miss the servers that they look for.
func (s *sweeper) awaitNetwork(ctx context.Context) error {
	err := poll(ctx, func() (bool, error) {
		return len(s.selfAddrs()) > 0 && s.RoutingTable().Size() > 0, nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-s.RefreshRoutingTable():
		if err != nil {
			s.log.Debug("parts of the routing table are missing", zap.Error(err))
		}
	case <-time.After(refreshPatience):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// selfAddrs are the addresses to announce. While there is none those before are:
// the provider would drop a region for a whole cycle whose turn comes just then,
// and relays and interfaces come and go.
func (s *sweeper) selfAddrs() []ma.Multiaddr {
	if addrs := s.FilteredAddrs(); len(addrs) > 0 {
		s.addrs.Store(&addrs)
	}
	if addrs := s.addrs.Load(); addrs != nil {
		return *addrs
	}
	return nil
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

// start starts the provider, once all keys are known. It goes on where an earlier
// one has ended; the first announces all.
//
// The provider remembers when it has announced a region only where it did so by
// its schedule, not where it was given keys. So it finds them on the disk; or it
// would announce all anew after every restart in the first cycle.
func (s *sweeper) start() error {
	p, err := provider.New(
		provider.WithHost(s.Host()),
		provider.WithRouter(s.place),
		provider.WithMessageSender(s.place),
		provider.WithReplicationFactor(s.BucketSize()),
		provider.WithSelfAddrs(s.selfAddrs),
		provider.WithAddLocalRecord(s.addLocalRecord),
		provider.WithKeystore(s.keys),
		provider.WithDatastore(s.store),
		provider.WithDhtType(s.name),
		provider.WithResumeCycle(!s.first),
		provider.WithOfflineDelay(neverOffline),
	)
	if err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	s.provider.Store(p)
	s.log.Info("announcing", zap.String("table", s.name), zap.Int("peers", s.RoutingTable().Size()))
	return nil
}

// resumed waits until a provider that resumes takes keys, if it does.
func (s *sweeper) resumed(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		stats, err := s.provider.Load().Stats(ctx)
		return stats.Schedule.AvgPrefixLength >= 0, err // less: not known
	})
}

// handOver gives the provider the keys that it has missed.
func (s *sweeper) handOver() error {
	keys := make([]mh.Multihash, 0, len(s.missed))
	for key := range s.missed {
		keys = append(keys, mh.Multihash(key))
	}
	s.missed = nil
	s.waiting.Store(0)
	if err := s.provider.Load().ProvideOnce(keys...); err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	return nil
}

// apply brings in a change.
func (s *sweeper) apply(ctx context.Context, d delta) error {
	if err := s.remove(ctx, d.gone); err != nil {
		return err
	}
	if err := s.add(ctx, d.later, nil); err != nil {
		return err
	}
	return s.add(ctx, d.now, s.announce)
}

// add takes up those of the keys that are new, and passes them to now. No key may
// be in the list twice: the keystore would count it twice.
func (s *sweeper) add(ctx context.Context, keys []mh.Multihash, now func([]mh.Multihash) error) error {
	if !s.first && !s.settled {
		s.told = append(s.told, keys...)
	}
	for batch := range slices.Chunk(keys, keyBatch) {
		batch, err := s.keys.Put(ctx, batch...)
		if p := s.provider.Load(); err == nil && p != nil {
			err = p.AddToSchedule(batch...)
		}
		if err == nil && now != nil {
			err = now(batch)
		}
		if err != nil {
			return fmt.Errorf("routing: %w", err)
		}
	}
	return nil
}

// announce announces new keys at once, or as soon as the provider takes them.
func (s *sweeper) announce(keys []mh.Multihash) error {
	p := s.provider.Load()
	switch {
	case s.missed != nil:
		for _, key := range keys {
			s.missed[string(key)] = struct{}{}
		}
		s.waiting.Store(int64(len(s.missed)))
		return nil
	case p == nil:
		return nil // It will find them.
	}
	return p.ProvideOnce(keys...)
}

// settle drops the keys of an earlier run that were not given again, and sees to
// it that the others are not announced again. It does not use the resettable
// keystore, whose worker blocks for ever if the context of a reset ends at the
// wrong moment.
func (s *sweeper) settle(ctx context.Context) error {
	s.settled = true
	if s.first {
		return nil
	}
	slices.SortFunc(s.told, compareKeys)
	told := slices.CompactFunc(s.told, func(a, b mh.Multihash) bool { return compareKeys(a, b) == 0 })
	s.told = nil
	all, err := s.keys.Get(ctx, "")
	if err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	stale := slices.DeleteFunc(all, func(key mh.Multihash) bool {
		_, ok := slices.BinarySearchFunc(told, key, compareKeys)
		return ok
	})
	if len(stale) > 0 {
		s.log.Debug("no longer announced", zap.Int("keys", len(stale)))
	}
	if err := s.remove(ctx, stale); err != nil {
		return err
	}
	return s.widenHistory(ctx, slices.DeleteFunc(told, func(key mh.Multihash) bool {
		_, missed := s.missed[string(key)]
		return missed
	}))
}

func compareKeys(a, b mh.Multihash) int { return bytes.Compare(a, b) }

// remove stops announcing keys.
func (s *sweeper) remove(ctx context.Context, keys []mh.Multihash) error {
	for _, key := range keys {
		delete(s.missed, string(key))
	}
	s.waiting.Store(int64(len(s.missed)))
	for batch := range slices.Chunk(keys, keyBatch) {
		var err error
		if p := s.provider.Load(); p != nil {
			err = p.StopProviding(batch...)
		} else {
			err = s.keys.Delete(ctx, batch...)
		}
		if err != nil {
			return fmt.Errorf("routing: %w", err)
		}
	}
	return nil
}

// addLocalRecord lets the node itself answer for a key. Only where there are few
// servers may it be asked before one that has a record; else these would be twice
// as many entries in the database as the node has keys.
func (s *sweeper) addLocalRecord(key mh.Multihash) error {
	if !s.place.few() {
		return nil
	}
	return s.Provide(context.Background(), cid.NewCidV1(cid.Raw, key), false)
}

func namespaced(store ds.Batching, name string) ds.Batching {
	return namespace.Wrap(store, ds.NewKey(name))
}
