// Package substituter is the binary cache on localhost that Nix talks to.
//
// It answers for metadata (narinfos) from its own cache, from the upstreams or
// from peers, and believes only what trusted keys have signed. It delivers
// NARs from whichever source has them: the local store, peers, the upstreams.
// Their bytes are checked against the signed NAR hash before the client has
// the last of them; sources that stall, break or lie are replaced.
//
// The ways of the protocol are Nix's http-binary-cache-store.cc and
// filetransfer.cc: only 200 and 404 for narinfos, and within a deadline, since
// Nix punishes every other answer with minutes of retries.
//
// Asking is telling. A path known only from a private upstream is never asked
// of strangers; and while a private upstream has not itself said that a path
// is absent, strangers are not asked about its hash part either.
package substituter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/internal/throttle"
	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

const (
	defaultPriority = 30 // cache.nixos.org says 40; lower is asked first
	defaultDeadline = 5 * time.Second
	defaultSpool    = 4 << 30 // bytes
	// smallNAR is the size in bytes up to which a NAR is verified whole in
	// memory before its first byte goes out. Where downloads are limited it is what
	// comes in smallTime, if that is less: Nix gives up after 300 s without a byte,
	// and asks for 16 NARs at once.
	smallNAR  = 16 << 20
	smallTime = 10 // seconds
	// maxTransfers bounds the NARs delivered at once. Nix asks for 16.
	maxTransfers = 64
	// maxLookups bounds the searches for records at once, and the questions to
	// the local store. Nix asks for 25.
	maxLookups = 256
	// refreshers is how many old records are revalidated at once.
	refreshers = 4
	// maxRefresh bounds the queue of records to be revalidated; the others are
	// queued again when they are next asked for.
	maxRefresh = 1024
	// maxRemembered bounds the absent paths, the refused records and the
	// distrusted NARs that are remembered, each.
	maxRemembered = 16 << 10
)

// Peers is the peer-to-peer network. Strangers are the peers of the public
// network that are not on the allow-list; if they may not be told, nothing goes
// to the DHT either.
type Peers interface {
	// Narinfos yields the unverified answers of peers as they come.
	Narinfos(ctx context.Context, part nix.HashPart, strangers bool) iter.Seq[*narinfo.Info]
	// Expect says that a NAR will probably be asked for. It does not block.
	Expect(hash nix.NARHash, strangers bool)
	// Dismiss says that a NAR is not expected any more. It does not block.
	Dismiss(hash nix.NARHash)
	// Known reports whether any provider of the NAR is known already.
	Known(hash nix.NARHash) bool
	// Open starts a transfer, which ends when ctx does.
	Open(ctx context.Context, want Want) (Transfer, error)
}

// Want is a NAR from an offset on.
type Want struct {
	Hash nix.NARHash
	// Path is the store path whose NAR it is.
	Path nix.StorePath
	// References are what it refers to.
	References []nix.StorePath
	// Size of the whole NAR and Offset in it, in bytes.
	Size, Offset int64
	Strangers    bool
}

// Transfer is the bytes of a NAR from peers, each chunk checked against a
// manifest.
type Transfer interface {
	io.ReadCloser
	// Earned reports whether the manifest's origin is good enough for its
	// bytes to reach Nix before the whole was verified.
	Earned() bool
	// Verdict tells whether the whole matched the signed hash. It is called at
	// most once, before Close.
	Verdict(ok bool)
	// Sources says which peers the bytes came from.
	Sources() []Source
	// Handed says whom the bytes came from that were read since the last call, in
	// their order. Those out of the local store have no peer, and Via is "store".
	Handed() []Source
}

// Source is one peer's part in a transfer.
type Source struct {
	Peer  string
	Bytes int64
	// Via is the way that they took: "lan", "direct" or "relay".
	Via string
}

// Bucket keeps small values on the disk. An error of Get means that there is
// no value: what is lost is asked for again.
type Bucket interface {
	Get(key []byte) ([]byte, error)
	Put(key, value []byte, ttl time.Duration) error
	Delete(key []byte) error
	// Each calls f with everything in the bucket, ordered by key, until f returns
	// an error. The slices are f's only during the call.
	Each(ctx context.Context, f func(key, value []byte) error) error
}

// Config is what the owner of the machine decides.
type Config struct {
	// Priority in nix-cache-info; 0 means 30.
	Priority int
	// Deadline is the longest time for one narinfo; 0 means 5 s.
	Deadline time.Duration
	// MaxRecords is how many records are kept on the disk, for 30 days at most;
	// 0 means 65,536. Where there are more, those go that were not asked for the
	// longest.
	MaxRecords int
	// NoPrefetch leaves the references of a record alone until Nix asks for them.
	NoPrefetch bool
	// Upstreams, those with the lowest priority asked first, and among equals
	// the quickest. One that signs with a key that is not in Trust is private.
	Upstreams []upstream.Config
	// RacePeers has peers asked for records at the same time as the upstreams,
	// and not only when these say nothing.
	RacePeers bool
	// Trust says which records are believed, beside the upstreams' own keys.
	Trust trust.Keys
	// Hosts are further names under which clients may address the server,
	// beside localhost and the address that they connected to.
	Hosts []string
	// SpoolDir holds unlinked temporary files; "" means os.TempDir. It should
	// be on a disk. SpoolSize bounds them, in bytes; 0 means 4 GiB.
	SpoolDir  string
	SpoolSize int64
}

// Deps are the other parts of the node.
type Deps struct {
	Log *zap.Logger
	// Records keeps narinfos.
	Records Bucket
	// Health keeps how the upstreams did; nil means that a restart forgets it.
	Health Bucket
	// Conflicts keeps what sources contradict each other in; nil means that
	// nothing of it is.
	Conflicts Bucket
	// Fetches keeps how NARs were fetched; nil means that a restart forgets it.
	Fetches Bucket
	// Store is the local store, or nil.
	Store narstore.Store
	// Peers is nil on a node without any.
	Peers Peers
	// Askable reports whether strangers may be asked about a NAR; nil means
	// that they may not.
	Askable func(*narinfo.Info) bool
	// Shared returns nil if peers may have a path of the local store, or else the
	// reason why not, for the owner. Nil means that nothing is shared.
	Shared func(context.Context, nix.StorePath) error
	// Events hears of requests and fetches, and Meter of the bytes that come;
	// either may be nil.
	Events *events.Hub
	Meter  *meter.Meter
	// Tracer traces requests; nil traces none.
	Tracer *tracing.Tracer
	// Metrics is nil where none are wanted.
	Metrics prometheus.Registerer
	// Memory is what small NARs are held in until they are verified; nil means
	// one of their own, of 256 MiB.
	Memory *budget.Budget
	// Rests reports whether nothing is to be looked up ahead of need for the time
	// being; nil means never.
	Rests func() bool
	// Downloads bounds how fast NARs come from peers and upstreams; nil means that
	// nothing does.
	Downloads *throttle.Throttle
}

// Server is the binary cache. Its handler works without Run, but old records
// are then not revalidated.
type Server struct {
	log     *zap.Logger
	started time.Time
	store   narstore.Store
	peers   Peers
	askable func(*narinfo.Info) bool
	shared  func(context.Context, nix.StorePath) error
	rests   func() bool

	configured atomic.Pointer[setup]
	changed    chan struct{} // has a signal when configured was changed
	health     Bucket        // of the upstreams, or nil
	traffic    *traffic

	records   *recordCache
	absent    *expiring[nix.HashPart, struct{}]
	refused   *expiring[claim, struct{}]
	conflicts *conflicts
	reports   *reports
	flights   singleflight.Group
	lookups   *semaphore.Weighted
	storeAsks *semaphore.Weighted
	refresh   chan nix.HashPart
	ahead     *prefetcher
	aloft     flights
	transfers *semaphore.Weighted
	memory    *budget.Budget
	downloads *throttle.Throttle
	states    *verify.Cache
	spool     *spool
	bans      *expiring[nix.NARHash, ban]
	tasks     *tasks
	counters  *counters
	plans     *planMetrics
	events    *events.Hub
	meter     *meter.Meter
	tracer    *tracing.Tracer
}

// New checks cfg and returns a server. It starts nothing.
func New(cfg Config, deps Deps) (*Server, error) {
	if deps.Log == nil || deps.Records == nil {
		return nil, errors.New("substituter: a logger and a bucket for records are needed")
	}
	s := &Server{
		log: deps.Log.Named("substituter"), started: time.Now(),
		store: deps.Store, peers: deps.Peers, askable: deps.Askable, shared: deps.Shared, rests: deps.Rests,
		changed:   make(chan struct{}, 1),
		health:    deps.Health,
		absent:    newExpiring[nix.HashPart, struct{}](maxRemembered),
		refused:   newExpiring[claim, struct{}](maxRemembered),
		lookups:   semaphore.NewWeighted(maxLookups),
		storeAsks: semaphore.NewWeighted(maxLookups),
		refresh:   make(chan nix.HashPart, maxRefresh),
		aloft:     flights{of: make(map[flightKey][]*flight)},
		transfers: semaphore.NewWeighted(maxTransfers),
		memory:    cmp.Or(deps.Memory, budget.New(0)),
		downloads: cmp.Or(deps.Downloads, throttle.New(0)),
		states:    verify.NewCache(),
		bans:      newExpiring[nix.NARHash, ban](maxRemembered),
		tasks:     newTasks(),
		counters:  newCounters(),
		plans:     newPlanMetrics(),
		events:    deps.Events,
		meter:     deps.Meter,
		tracer:    deps.Tracer,
	}
	s.spool = newSpool(orDefault(cfg.SpoolDir, os.TempDir()), orDefault(cfg.SpoolSize, defaultSpool))
	if s.askable == nil {
		s.askable = func(*narinfo.Info) bool { return false }
	}
	if s.rests == nil {
		s.rests = func() bool { return false }
	}
	if s.shared == nil {
		s.shared = func(context.Context, nix.StorePath) error { return errors.New("this node shares nothing") }
	}
	s.traffic = newTraffic(func() []*mirror { return s.setup().upstreams })
	first, err := s.newSetup(cfg, nil)
	if err != nil {
		return nil, err
	}
	s.configured.Store(first)
	s.ahead = newPrefetcher(s)
	s.records = newRecordCache(deps.Records, s.believe, orDefault(cfg.MaxRecords, defaultMaxRecords), s.log)
	s.reports = newReports(deps.Fetches, deps.Events, s.log)
	s.conflicts = newConflicts(deps.Conflicts, s.trusted, s.counters.conflicts, s.log)
	if deps.Metrics != nil {
		for _, c := range append(s.plans.all(), s.counters, s.traffic) {
			if err := deps.Metrics.Register(c); err != nil {
				return nil, fmt.Errorf("substituter: %w", err)
			}
		}
	}
	return s, nil
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// Run revalidates old records, removes surplus ones and probes upstreams that
// fail until ctx ends, waits for what is still under way, and closes the
// connections to the upstreams.
func (s *Server) Run(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error { return s.records.run(ctx) })
	for range refreshers {
		group.Go(func() error { return s.revalidate(ctx) })
	}
	group.Go(func() error { return s.tend(ctx) })
	err := group.Wait()
	// Requests may go on until they are drained; lookups end by their deadline.
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*s.setup().Deadline)
	defer cancel()
	_ = s.tasks.wait(waiting) // whoever is still there ends with its connection
	for _, m := range s.setup().upstreams {
		m.keep(0)
		m.CloseIdleConnections()
	}
	return err
}

// Drain refuses new requests by closing their connections, and waits until
// those under way have finished or ctx ends.
func (s *Server) Drain(ctx context.Context) error {
	s.tasks.close()
	if err := s.tasks.wait(ctx); err != nil {
		return fmt.Errorf("substituter: drain: %w", err)
	}
	return nil
}

// Handler serves the binary cache, at the root of its URL space.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }
