package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/web"
)

// newToken makes what lets a page pause sharing. It changes with every start.
func newToken() string {
	random := make([]byte, 24)
	_, _ = rand.Read(random) // which never fails
	return base64.RawURLEncoding.EncodeToString(random)
}

// Dashboard implements control.Node.
func (n node) Dashboard() control.Dashboard {
	return control.Dashboard{URL: urlOf(n.http) + "/#token=" + n.token}
}

// frontHandler serves what comes over TCP: Nix, browsers and monitoring.
func (d *daemon) frontHandler(ctx context.Context) http.Handler {
	metrics := promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{})
	dashboard := web.New(ctx, view{node{d}, ctx.Done()}, d.token, metrics, d.log)
	return dashboard.Handler(d.substituter.Handler(), d.substituter.Guard)
}

// view is the node as the dashboard sees it.
type view struct {
	node
	stopping <-chan struct{} // closed when the node is to end
}

var _ web.Node = view{}

// Flights implements web.Node.
func (v view) Flights() []explain.Flight { return v.substituter.Flights() }

// Problems implements web.Node.
func (v view) Problems() []events.Event { return v.events.Problems() }

// Lately implements web.Node.
func (v view) Lately() meter.Lately { return v.meter.Lately() }

// Since implements web.Node.
func (v view) Since(t time.Time) meter.Series { return v.meter.Since(t) }

// Unready implements web.Node.
func (v view) Unready() string {
	select {
	case <-v.stopping:
		return "stopping"
	default:
	}
	if v.node.node == nil {
		return ""
	}
	select {
	case <-v.node.node.Ready():
		return ""
	default:
		return "not listening for peers yet"
	}
}
