package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/internal/conns"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/substituter"
)

const (
	// drainTimeout is how long transfers to Nix may go on after the daemon was
	// told to end: well below systemd's 90 s, and enough for most.
	drainTimeout = 30 * time.Second
)

// run starts every part and waits until ctx ends, or a part fails. Then it
// calls stopping, drains the servers, and stops the parts below them.
func (d *daemon) run(ctx context.Context, stopping func()) error {
	// The parts live on while the servers drain.
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, below := errgroup.WithContext(below)
	part := func(run func(context.Context) error) {
		group.Go(func() error { return untilStopped(below, run) })
	}
	part(d.substituter.Run)
	part(d.vouched.Run)
	part(func(ctx context.Context) error { return d.settings.run(ctx, d.whileReloading) })
	part(giveBackMemory)
	part(d.meter.Run)
	part(d.sharing.Run)
	part(d.limits.Run)
	part(d.line.Run)
	if d.reuse != nil {
		part(d.reuse.Run)
	}
	if d.serves() {
		part(d.catalog.Run)
	}
	if d.node != nil {
		part(d.node.Run)
		part(d.followPeers)
		part(d.followAnnouncing)
	}
	// systemd asks for no sign of life of what it knows to be stopping.
	untilDrain, draining := context.WithCancel(below)
	defer draining()
	group.Go(func() error { return untilStopped(untilDrain, d.followStatus) })
	group.Go(func() error { return untilStopped(untilDrain, d.feedWatchdog) })
	servers := []*http.Server{
		substituter.NewHTTPServer(d.frontHandler(ctx), d.log),
		substituter.NewHTTPServer(d.controlHandler(ctx), d.log),
	}
	servers[1].ConnContext = control.WithCaller
	listeners := []net.Listener{
		conns.Bound(servers[0], d.http, maxConns(maxHTTPConns)), conns.Bound(servers[1], d.controlSocket, maxConns(maxControlConns)),
	}
	if d.routing != nil {
		server := routingServer(d.cfg, d.node, d.metrics, d.log)
		servers = append(servers, server)
		listeners = append(listeners, conns.Bound(server, d.routing, maxConns(maxRoutingConns)))
	}
	for i, l := range listeners {
		group.Go(func() error { return serve(servers[i], l) })
	}
	group.Go(func() error {
		defer stop()
		if d.awaitReady(below) {
			d.announceReady()
		}
		select {
		case <-ctx.Done():
			stopping()
			draining()
			d.drain(servers)
		case <-below.Done():
		}
		return closeAll(servers)
	})
	return group.Wait()
}

// untilStopped runs a part. That it ends because it was stopped is no error.
func untilStopped(ctx context.Context, run func(context.Context) error) error {
	err := run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// awaitReady reports whether the node has come to listen.
func (d *daemon) awaitReady(ctx context.Context) bool {
	if d.node == nil {
		return true
	}
	select {
	case <-d.node.Ready():
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *daemon) announceReady() {
	if err := d.welcome(); err != nil {
		d.log.Warn("not remembered that the owner was told what others can see", zap.Error(err))
	}
	d.logReady()
	d.notify(systemd.SdNotifyReady, "STATUS="+d.statusLine())
}

// controlHandler serves the control API. What is asked of the node ends with
// ctx; only transfers are left to drain.
func (d *daemon) controlHandler(ctx context.Context) http.Handler {
	metrics := promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{})
	return control.NewHandler(ctx, node{d}, d.substituter.Handler(), metrics, d.log)
}

func serve(server *http.Server, l net.Listener) error {
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// drain takes no more requests and waits for those under way, for a while.
func (d *daemon) drain(servers []*http.Server) {
	d.notify(systemd.SdNotifyStopping, "STATUS=stopping: letting transfers finish")
	d.log.Info("stopping: letting transfers finish; a second signal stops at once", zap.Duration("atMost", drainTimeout))
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var group errgroup.Group
	group.Go(func() error { return d.substituter.Drain(ctx) })
	for _, server := range servers {
		group.Go(func() error { return server.Shutdown(ctx) })
	}
	if err := group.Wait(); err != nil {
		d.log.Warn("transfers were broken off", zap.Error(err))
	}
}

func closeAll(servers []*http.Server) error {
	var errs []error
	for _, server := range servers {
		errs = append(errs, server.Close())
	}
	return errors.Join(errs...)
}
