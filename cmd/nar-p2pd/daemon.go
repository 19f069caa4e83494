package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/internal/throttle"
	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore/manifests"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/narstore/state"
	"github.com/nar-p2p/nar-p2p/narstore/vouch"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/substituter"
)

// daemon is all parts of the node, wired but not running.
type daemon struct {
	cfg *config.Config
	log *zap.Logger
	// settings are cfg with what was changed since the start. What can be changed
	// is to be looked up there.
	settings *reloader
	started  time.Time

	controlSocket net.Listener
	http          net.Listener
	// routing is nil where serve_routing is not set.
	routing net.Listener
	db      *state.DB
	store   store
	// reuse is nil where nothing is taken from the store.
	reuse *reuse.Index
	// vouched is store with own signatures, and what store reads from.
	vouched *vouch.Store
	catalog *share.Catalog
	// node is nil in profile off.
	node        *p2p.Node
	substituter *substituter.Server
	metrics     *prometheus.Registry
	// memory is that of all NARs on their way, downloads what bounds how fast they
	// come.
	memory    *budget.Budget
	downloads *throttle.Throttle
	limits    *limits
	// line is whether the connection is metered.
	line *line
	// events is what happens, meter how many bytes come and go.
	events  *events.Hub
	meter   *meter.Meter
	sharing *sharing
	// tracer is nil where requests are not traced.
	tracer *tracing.Tracer
	// token is what the dashboard wants of whoever changes something.
	token string

	// closers undo what was opened, last first.
	closers []func() error
}

// runDaemon runs the node until ctx ends, and calls stopping when it begins to
// drain.
func runDaemon(ctx context.Context, stopping func(), cfg *config.Config, settings *reloader, log *zap.Logger) error {
	hub := events.NewHub()
	d := &daemon{
		cfg: cfg, log: hub.Warnings(log), started: time.Now(), metrics: prometheus.NewRegistry(), memory: budget.New(cfg.Fetch.Memory),
		events: hub, token: newToken(), settings: settings, downloads: throttle.New(0),
	}
	d.metrics.MustRegister(d.memory)
	err := d.open(ctx)
	if err == nil {
		err = d.run(ctx, stopping)
	}
	return errors.Join(err, d.close())
}

// open makes every part. What it has opened close closes, also after an error.
func (d *daemon) open(ctx context.Context) error {
	d.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := os.MkdirAll(d.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	for _, open := range []func(context.Context) error{
		d.openControl, d.openHTTP, d.openRouting, d.openTracer, d.openState, d.openStore, d.openNode, d.openSubstituter,
	} {
		if err := open(ctx); err != nil {
			return err
		}
	}
	upload := func(int64) {}
	if d.node != nil {
		upload = d.node.LimitUploads
	}
	d.line = newLine(d.settings, d.sharing.rest, d.log)
	d.limits = newLimits(d.settings, upload, d.downloads, d.log)
	d.addReloadable()
	return nil
}

func (d *daemon) close() error {
	var errs []error
	for _, undo := range slices.Backward(d.closers) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// openControl comes first: a second daemon is to fail before it touches
// anything.
func (d *daemon) openControl(ctx context.Context) (err error) {
	d.controlSocket, err = control.Listen(ctx, d.cfg.Control.Socket, d.log)
	if err == nil {
		d.closers = append(d.closers, ignoreClosed(d.controlSocket))
	}
	return err
}

func (d *daemon) openHTTP(ctx context.Context) (err error) {
	d.http, err = listenHTTP(ctx, d.cfg.Substituter.Listen)
	if err != nil {
		return fmt.Errorf("substituter.listen: %w", err)
	}
	d.closers = append(d.closers, ignoreClosed(d.http))
	return nil
}

func (d *daemon) openRouting(ctx context.Context) (err error) {
	if d.cfg.ServeRouting == "" {
		return nil
	}
	d.routing, err = (&net.ListenConfig{}).Listen(ctx, "tcp", d.cfg.ServeRouting)
	if err != nil {
		return fmt.Errorf("serve_routing: %w", err)
	}
	d.closers = append(d.closers, ignoreClosed(d.routing))
	return nil
}

func (d *daemon) openTracer(ctx context.Context) (err error) {
	if d.tracer, err = tracing.New(ctx, d.cfg.Tracing.Endpoint, d.log); err == nil {
		d.closers = append(d.closers, d.tracer.Close)
	}
	return err
}

func (d *daemon) openState(context.Context) (err error) {
	d.db, err = state.Open(filepath.Join(d.cfg.StateDir, "db"), d.log)
	if err == nil {
		d.closers = append(d.closers, d.db.Close)
		d.meter = meter.New(d.db.Bucket("traffic"), d.log)
	}
	return err
}

func (d *daemon) openStore(context.Context) (err error) {
	if d.store, err = openStore(d.cfg, d.log); err != nil {
		return err
	}
	d.closers = append(d.closers, d.store.Close)
	policy, err := newPolicy(&d.cfg.Share)
	if err != nil {
		return err
	}
	d.openReuse()
	d.vouched = vouch.New(d.store.Store, d.db.Bucket("signatures"), d.log)
	d.store.Store = d.vouched
	keeper := manifests.New(d.db.Bucket("manifests"), d.log)
	d.metrics.MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Namespace: "nar_p2p", Subsystem: "manifests", Name: "computing", Help: "Manifests being computed."},
		func() float64 { return float64(keeper.Computing()) }))
	d.catalog = share.New(d.store, policy, keeper, d.db.Bucket("marks"), d.log)
	return nil
}

func (d *daemon) openNode(context.Context) (err error) {
	if d.cfg.Profile != config.ProfileOff {
		cfg, err := nodeConfig(d.cfg, d.db, d.metrics)
		if err != nil {
			return err
		}
		cfg.Memory, cfg.Window, cfg.Reuse = d.memory, d.cfg.Fetch.Window, d.reuse
		if d.node, err = p2p.New(*cfg, d.catalog, d.log); err != nil {
			return err
		}
		d.meter.ServedFrom(d.node.BytesServed)
	}
	d.sharing = newSharing(d.db, d.node, d.events, d.log)
	return nil
}

func (d *daemon) openSubstituter(context.Context) error {
	cfg, err := substituterConfig(d.cfg)
	if err != nil {
		return err
	}
	deps := substituter.Deps{
		Log:       d.log,
		Records:   d.db.Bucket("narinfo"),
		Health:    d.db.Bucket("upstreams"),
		Conflicts: d.db.Bucket("conflicts"),
		Fetches:   d.db.Bucket("fetches"),
		Askable:   func(info *narinfo.Info) bool { return d.catalog.Policy().Askable(info) },
		Shared:    d.shared,
		Events:    d.events,
		Meter:     d.meter,
		Tracer:    d.tracer,
		Metrics:   d.metrics,
		Memory:    d.memory,
		Downloads: d.downloads,
		Rests:     func() bool { return d.line.rests() },
	}
	if d.store.kind != config.StoreNone {
		deps.Store = d.store
	}
	if d.node != nil {
		deps.Peers = peers{d.node, d.cfg.Profile, d.cfg.Network == config.PublicNetwork, d.reuse}
	}
	d.substituter, err = substituter.New(*cfg, deps)
	d.metrics.MustRegister(newGauges(d))
	return err
}

// serves reports whether peers may get anything from this node.
func (d *daemon) serves() bool {
	return d.cfg.Profile != config.ProfileOff && d.cfg.Profile != config.ProfileConsume
}
