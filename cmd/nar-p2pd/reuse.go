package main

import (
	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
)

// openReuse makes the index of chunks in the local store, where there is one of
// which ranges can be read, and peers who send manifests.
func (d *daemon) openReuse() {
	cfg := &d.cfg.Reuse
	if !cfg.Enabled || d.store.kind != config.StoreNix || d.cfg.Profile == config.ProfileOff {
		return
	}
	settings := reuse.Config{
		Plain:    !cfg.Masked,
		MaxBytes: cfg.IndexSize,
		Background: reuse.Background{
			Off: !cfg.Background, MinSize: cfg.BackgroundMin, Rate: cfg.BackgroundRate,
			Rests: func() bool { return d.line.rests() },
		},
		Registerer: d.metrics,
	}
	if d.cfg.Network == config.PublicNetwork {
		settings.Public = func(info *narstore.PathInfo) bool { return d.catalog.Policy().Check(info) == nil }
	}
	buckets := reuse.Buckets{Chunks: d.db.Bucket("reuse"), Paths: d.db.Bucket("reuse-paths")}
	d.reuse = reuse.New(d.store.Store, buckets, settings, d.log)
}
