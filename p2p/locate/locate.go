// Package locate finds peers that hold a NAR, or that answer for the narinfo of
// a store path, with as little traffic as that takes.
//
// Something is looked for in two steps. First the sources are asked directly:
// neighbours, which are peers connected on the local network, configured ones
// and members of a private network; and helpers, which are peers that had what
// was asked for lately, because the paths of a closure live together. Only what
// no source has is looked up in the DHT, a walk through the network. Whoever a
// walk finds is asked about everything else that is wanted, and is a helper for
// what comes next if it has any of it; so a closure of hundreds of paths costs
// a few walks.
//
// All questions of one kind to one peer stand in one line: while a request is
// under way those that come wait, and then go together.
//
// NARs are looked for ahead of need (Expect). A lookup ends when nobody waits
// for what it may find. Which peers hold a NAR is remembered for ten minutes,
// that nobody does for one, unless a new neighbour appears. Records are handed
// on and not kept.
package locate

import (
	"context"
	"iter"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

const (
	// maxEntries bounds what is remembered; an entry takes about 300 bytes, and
	// 1 KB with many holders.
	maxEntries = 10_000
	// maxExpected bounds the NARs that are expected at one time: a large
	// closure. What is beyond is looked for when it is wanted.
	maxExpected = 4_096
	// maxWanted bounds what is looked for at one time in all. Whoever waits is
	// bounded elsewhere; this only stops what has gone wrong.
	maxWanted = 2 * maxExpected
)

const (
	positiveTTL = 10 * time.Minute
	negativeTTL = time.Minute
	// expectTime is how long a NAR is expected: Nix asks for the narinfos of
	// a closure first and then for its NARs.
	expectTime = 2 * time.Minute
	// sweepInterval is how often what is expected no longer is dropped.
	sweepInterval = 10 * time.Second
)

// client asks peers; an exchange.Client does.
type client interface {
	Have(ctx context.Context, p peer.ID, hashes []nix.NARHash) ([]exchange.Holding, error)
	Narinfos(ctx context.Context, p peer.ID, parts []nix.HashPart) ([]*narinfo.Info, error)
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
	// Reach says how a peer can be reached; nil: all directly.
	Reach func(p peer.ID) Reach
	// Usable reports whether a peer may be asked at all; nil: every one may.
	Usable func(p peer.ID) bool
	// Rate is what a peer usually brings, in bytes a second, 0 where that is not
	// known; nil: of nobody.
	Rate func(p peer.ID) float64
	// Ledger hears, elsewhere, how requests to peers went; nil for none.
	Ledger *Ledger
	// JoinPatience is how long after the start the first neighbour is waited
	// for where nobody else could be asked; 0 for not at all.
	JoinPatience time.Duration
	// Patience is how long peers that may know may take to answer before the DHT is
	// searched; 0 for half a second.
	Patience time.Duration
	// Registerer receives metrics. Nil: none are made.
	Registerer prometheus.Registerer
}

func (c *Config) setDefaults() {
	if c.Reach == nil {
		c.Reach = func(peer.ID) Reach { return Direct }
	}
	if c.Usable == nil {
		c.Usable = func(peer.ID) bool { return true }
	}
	if c.Rate == nil {
		c.Rate = func(peer.ID) float64 { return 0 }
	}
	if c.Ledger == nil {
		c.Ledger = NewLedger()
	}
	if c.Patience == 0 {
		c.Patience = defaultPatience
	}
}

// Finder finds peers. All methods are safe for concurrent use.
type Finder struct {
	cfg      Config
	patience patience
	log      *zap.Logger
	metrics  *metrics
	// made is when New was called.
	made time.Time
	// wake tells Run that there may be something to do.
	wake chan struct{}
	// stopped is closed when Run has ended.
	stopped chan struct{}

	mu sync.Mutex
	// entries is a cache by key; the rest is about what is under way.
	entries *lru.LRU[key, *entry]
	// wanted holds the entries that somebody waits for or expects, open those of
	// them for which not all is said.
	wanted, open map[*entry]struct{}
	// epoch counts the neighbours that appeared.
	epoch uint64
	swept time.Time
	// near is a cache of what Config.Neighbours returns.
	near map[bool]neighbourhood
	// helpers holds peers that lately had what was asked, the latest first.
	helpers []helper
	lines   map[peer.ID]*line
	walks   walks
}

// New returns a Finder.
func New(cfg Config, log *zap.Logger) *Finder {
	cfg.setDefaults()
	entries, err := lru.NewLRU[key, *entry](maxEntries, nil)
	if err != nil {
		panic("locate: " + err.Error()) // only for a size that is not positive
	}
	return &Finder{
		cfg:      cfg,
		patience: patience(cfg.Patience),
		log:      log.Named("locate"),
		metrics:  newMetrics(cfg.Registerer),
		made:     time.Now(),
		wake:     make(chan struct{}, 1),
		stopped:  make(chan struct{}),
		entries:  entries,
		wanted:   make(map[*entry]struct{}),
		open:     make(map[*entry]struct{}),
		near:     make(map[bool]neighbourhood),
		lines:    make(map[peer.ID]*line),
		walks:    newWalks(),
	}
}

// Run looks for what is wanted until ctx ends. It runs once.
func (f *Finder) Run(ctx context.Context) error {
	defer close(f.stopped)
	var jobs sync.WaitGroup
	defer jobs.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, next := f.due(ctx)
		for _, job := range due {
			jobs.Go(job)
		}
		timer.Reset(time.Until(next))
		select {
		case <-f.wake:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// poke makes Run look for something to do.
func (f *Finder) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// due moves on what its time has come for. It returns what is to be done now,
// each in a goroutine of its own, and when to ask again.
func (f *Finder) due(ctx context.Context) (jobs []func(), next time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.swept) >= sweepInterval {
		f.sweep(now)
	}
	next = f.swept.Add(sweepInterval)
	until := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	for e := range f.open {
		switch {
		case !e.linger.IsZero():
			f.endLinger(e, now, until)
		case e.step != asking:
		case now.Before(e.due):
			until(e.due)
		default:
			if f.settle(e, now); e.step == asking {
				until(e.due)
			}
		}
	}
	jobs = f.nextWalks(ctx, now, until)
	return append(jobs, f.nextRequests(ctx, now, until)...), next
}

// sweep drops what is no longer expected; mu is held.
func (f *Finder) sweep(now time.Time) {
	f.swept = now
	for e := range f.wanted {
		if !e.needed(now) {
			f.abandon(e)
		}
	}
	f.metrics.closure.sweep(now)
}
