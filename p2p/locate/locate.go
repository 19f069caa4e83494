// Package locate finds peers that hold a NAR, ahead of the time when it is
// wanted and with as little traffic as that takes.
//
// A NAR is looked for in two steps. First the sources are asked directly, all
// in one batch of have requests: neighbours, which are peers connected on the
// local network, configured ones and members of a private network; and peers
// that held what was asked for lately, because the paths of a closure live
// together. Only for what no source holds the DHT is searched. Whoever is found
// there is asked at once about everything else that is still looked for, so a
// closure of hundreds of paths costs a few lookups.
//
// Answers are remembered: a positive one for ten minutes, a negative one for
// one, unless a new neighbour appears.
package locate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

const (
	// maxEntries bounds the NARs that are remembered; each takes about 200
	// bytes, and 1 KB with many holders.
	maxEntries = 10_000
	// maxHolders bounds the holders remembered of one NAR: more than the swarm
	// can use at once.
	maxHolders = 32
	// maxQueue bounds the NARs that wait for a step. What is expected beyond
	// it is not looked for ahead of time.
	maxQueue = exchange.MaxHashes
	// maxRounds, maxSearches and maxIntroductions bound the rounds of have
	// requests, the lookups in the DHT, and the requests to peers just found,
	// at once.
	maxRounds        = 4
	maxSearches      = 16
	maxIntroductions = 8
)

const (
	positiveTTL = 10 * time.Minute
	negativeTTL = time.Minute
	// offlineTTL is how long "not found" counts where the DHT had no peers.
	offlineTTL = 5 * time.Second
	// searchTimeout bounds one lookup in the DHT. At 80 ms of round trip one
	// that finds nothing takes 0.9 s.
	searchTimeout = 10 * time.Second
	// searchDelay is how long Providers leaves it at what the sources hold
	// before it searches the DHT for more. Most NARs have arrived by then.
	searchDelay = 2 * time.Second
)

// client asks peers; an exchange.Client does.
type client interface {
	Have(ctx context.Context, p peer.ID, hashes []nix.NARHash) ([]exchange.Holding, error)
}

// addressBook remembers addresses; a host's peerstore does.
type addressBook interface {
	AddAddrs(p peer.ID, addrs []ma.Multiaddr, ttl time.Duration)
	Addrs(p peer.ID) []ma.Multiaddr
}

// router is a DHT.
type router interface {
	FindProviders(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo]
	// Size is the number of peers that can be asked.
	Size() int
}

// Config is what a Finder works with.
type Config struct {
	Client client
	Book   addressBook
	// DHT is nil where there is none.
	DHT router
	// Neighbours returns the connected peers to ask first, best first. With
	// strangers false it leaves out all but the allow-listed ones.
	Neighbours func(strangers bool) []peer.ID
}

// Finder finds the holders of NARs. All methods are safe for concurrent use.
type Finder struct {
	cfg           Config
	log           *zap.Logger
	asks          chan *entry
	searches      chan *entry
	introductions chan peer.ID
	// stopped is closed when Run has ended.
	stopped chan struct{}

	mu sync.Mutex
	// entries is a cache by key, the rest is about what is under way.
	entries *lru.LRU[key, *entry]
	// open holds the entries that are looked for at present.
	open map[*entry]struct{}
	// epoch counts the neighbours that appeared.
	epoch uint64
	// recent holds peers that lately held what was asked, the latest first.
	recent []recent
	// asking counts the requests under way for each peer.
	asking map[peer.ID]int
}

// New returns a Finder.
func New(cfg Config, log *zap.Logger) *Finder {
	entries, err := lru.NewLRU[key, *entry](maxEntries, nil)
	if err != nil {
		panic("locate: " + err.Error()) // only for a size that is not positive
	}
	return &Finder{
		cfg:           cfg,
		log:           log.Named("locate"),
		asks:          make(chan *entry, maxQueue),
		searches:      make(chan *entry, maxQueue),
		introductions: make(chan peer.ID, 8*maxIntroductions),
		stopped:       make(chan struct{}),
		entries:       entries,
		open:          make(map[*entry]struct{}),
		asking:        make(map[peer.ID]int),
	}
}

// Run looks for what is wanted until ctx ends. It runs once.
func (f *Finder) Run(ctx context.Context) error {
	defer close(f.stopped)
	g, ctx := errgroup.WithContext(ctx)
	for range maxRounds {
		g.Go(func() error { return work(ctx, f.asks, f.round) })
	}
	for range maxSearches {
		g.Go(func() error { return work(ctx, f.searches, f.search) })
	}
	for range maxIntroductions {
		g.Go(func() error { return work(ctx, f.introductions, f.introduce) })
	}
	return g.Wait()
}

// work does what comes in until ctx ends.
func work[T any](ctx context.Context, queue <-chan T, do func(context.Context, T)) error {
	for {
		select {
		case item := <-queue:
			do(ctx, item)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Expect starts to look for a NAR in the background, unless there is too much
// to look for already. With strangers false only allow-listed peers learn of
// it, and the DHT does not.
func (f *Finder) Expect(h nix.NARHash, strangers bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entry(key{h, strangers})
	if e.step != idle {
		return
	}
	select {
	case f.asks <- e:
		f.advance(e, asking)
	default:
	}
}

// Known reports whether a holder of the NAR is known.
func (f *Finder) Known(h nix.NARHash) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, strangers := range []bool{true, false} {
		if e, ok := f.entries.Peek(key{h, strangers}); ok && len(e.holders) > 0 && !f.stale(e) {
			return true
		}
	}
	return false
}

// Forget takes note that a peer does not hold the NAR after all.
func (f *Finder) Forget(h nix.NARHash, p peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, strangers := range []bool{true, false} {
		if e, ok := f.entries.Peek(key{h, strangers}); ok {
			f.refuse(e, p)
		}
	}
}

// Neighbour takes note of a peer that can now be asked directly.
func (f *Finder) Neighbour(p peer.ID) {
	f.mu.Lock()
	f.epoch++
	f.mu.Unlock()
	select {
	case f.introductions <- p:
	default: // The next round asks it.
	}
}

var errStopped = errors.New("locate: stopped")

// Providers gives the holders of a NAR as they are found, the nearest first,
// and ends when no more are looked for or ctx ends.
func (f *Finder) Providers(ctx context.Context, h nix.NARHash, strangers bool) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		e, err := f.want(ctx, key{h, strangers})
		if err != nil {
			f.log.Debug("cannot look for holders", zap.Stringer("narHash", h), zap.Error(err))
			return
		}
		delay := time.NewTimer(searchDelay)
		defer delay.Stop()
		given := make(map[peer.ID]struct{})
		for {
			holders, changed, ended := f.look(e)
			for _, h := range holders {
				p := h.peer
				if _, ok := given[p]; ok {
					continue
				}
				given[p] = struct{}{}
				// Who has answered was connected, and may be so still although it
				// has no address: it came through a NAT.
				addrs := f.cfg.Book.Addrs(p)
				if (h.own || len(addrs) > 0) && !yield(peer.AddrInfo{ID: p, Addrs: addrs}) {
					return
				}
			}
			if ended {
				return
			}
			select {
			case <-changed:
			case <-delay.C:
				f.searchMore(e)
			case <-f.stopped:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// want returns the entry for a NAR that is looked for or was found.
func (f *Finder) want(ctx context.Context, k key) (*entry, error) {
	f.mu.Lock()
	e := f.entry(k)
	if e.step != idle {
		f.mu.Unlock()
		return e, nil
	}
	f.advance(e, asking)
	f.mu.Unlock()
	select {
	case f.asks <- e:
		return e, nil
	case <-f.stopped:
		return nil, errStopped
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		f.advance(e, idle)
		return nil, fmt.Errorf("locate: %w", ctx.Err())
	}
}

// look returns what is known of an entry, a channel that is closed when that
// changes, and whether it will not change any more.
func (f *Finder) look(e *entry) (holders []holder, changed <-chan struct{}, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ended = e.step == searched || e.step == asked && !f.searchable(e) || e.step == idle
	return slices.Clone(e.holders), e.changed, ended
}
