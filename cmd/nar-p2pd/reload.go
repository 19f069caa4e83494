package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// reloader knows what the daemon runs with, and brings in what can be changed
// while it does.
type reloader struct {
	// load reads the settings again, from where they came at the start.
	load func() (*config.Config, error)
	// parts are added before the daemon runs.
	parts []reloadable
	log   *zap.Logger

	reloading sync.Mutex
	// now does not change: another one takes its place.
	now atomic.Pointer[config.Config]
}

// reloadable is a part of the daemon that takes other settings while it runs.
type reloadable struct {
	keys []string
	// prepare checks them, and returns what brings them in.
	prepare func(*config.Config) (commit func(), err error)
}

func newReloader(cfg *config.Config, load func() (*config.Config, error), log *zap.Logger) *reloader {
	r := &reloader{load: load, log: log}
	r.now.Store(cfg)
	return r
}

// add makes keys such as can be changed.
func (r *reloader) add(prepare func(*config.Config) (commit func(), err error), keys ...string) {
	r.parts = append(r.parts, reloadable{keys, prepare})
}

// current returns the settings that count now.
func (r *reloader) current() *config.Config { return r.now.Load() }

// reload reads the settings and applies what it can. Where they have a mistake
// nothing changes.
func (r *reloader) reload() (*control.Reloaded, error) {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	cfg, err := r.load()
	if err != nil {
		return nil, err
	}
	told := &control.Reloaded{Applied: []string{}, Restart: []string{}}
	var affected []reloadable
	changed := config.Changes(r.current(), cfg)
	for _, key := range changed {
		i := slices.IndexFunc(r.parts, func(p reloadable) bool { return slices.Contains(p.keys, key) })
		if i < 0 {
			told.Restart = append(told.Restart, key)
			continue
		}
		told.Applied = append(told.Applied, key)
		if !slices.ContainsFunc(affected, func(p reloadable) bool { return slices.Equal(p.keys, r.parts[i].keys) }) {
			affected = append(affected, r.parts[i])
		}
	}
	next, err := r.current().With(cfg, told.Applied)
	if err != nil {
		// Such as the key of a team together with its network.
		told.Applied, told.Restart = []string{}, changed
		told.Note = "nothing counts before that restart, since without the rest of it: " + err.Error()
		r.log.Warn("settings need a restart: what could change without does not go together with the rest", zap.Strings("needRestart", told.Restart), zap.Error(err))
		return told, nil
	}
	if err := r.bringIn(next, affected); err != nil {
		return nil, err
	}
	r.log.Info("settings read again", zap.Strings("applied", told.Applied), zap.Strings("needRestart", told.Restart))
	return told, nil
}

// bringIn changes all parts, or none.
func (r *reloader) bringIn(next *config.Config, parts []reloadable) error {
	commits := make([]func(), len(parts))
	for i, p := range parts {
		var err error
		if commits[i], err = p.prepare(next); err != nil {
			return err
		}
	}
	r.now.Store(next)
	for _, commit := range commits {
		commit()
	}
	return nil
}

// run reloads at every SIGHUP until ctx ends, each time within during.
func (r *reloader) run(ctx context.Context, during func(context.Context, func())) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			during(ctx, func() {
				if _, err := r.reload(); err != nil {
					r.log.Error("settings not read again: those from before go on", zap.Error(err))
				}
			})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// always is a part that takes any settings that are valid.
func always(bring func(*config.Config)) func(*config.Config) (func(), error) {
	return func(cfg *config.Config) (func(), error) { return func() { bring(cfg) }, nil }
}

// addReloadable names the settings that can be changed, but for those of the log.
func (d *daemon) addReloadable() {
	d.settings.add(func(cfg *config.Config) (func(), error) {
		policy, err := newPolicy(&cfg.Share)
		if err != nil {
			return nil, err
		}
		return func() { d.changePolicy(policy) }, nil
	}, "share.public_keys", "share.exclude", "share.max_nar_size")
	d.settings.add(func(cfg *config.Config) (func(), error) {
		s, err := substituterConfig(cfg)
		if err != nil {
			return nil, err
		}
		return d.substituter.Prepare(*s)
	}, "upstream", "trust.public_keys", "trust.threshold", "substituter.priority", "substituter.deadline",
		"substituter.hosts", "substituter.race_peers", "substituter.prefetch")
	d.settings.add(always(func(*config.Config) { d.limits.change() }), "p2p.upload_limit", "fetch.download_limit", "schedule")
	d.settings.add(always(func(*config.Config) { d.line.change() }), "metered")
	if d.node == nil {
		return
	}
	d.settings.add(always(func(cfg *config.Config) { d.node.BudgetAnnouncing(cfg.Share.AnnounceBudget) }), "share.announce_budget")
}

// changePolicy shares by other rules from now on, and tells the owner what that
// means.
func (d *daemon) changePolicy(policy *share.Policy) {
	if err := d.catalog.Apply(policy); err != nil {
		d.log.Error("the rules for sharing stay as they were", zap.Error(err))
		return
	}
	if err := d.welcome(); err != nil {
		d.log.Warn("not remembered that the owner was told what others can see", zap.Error(err))
	}
}

// Reload implements control.Node.
func (n node) Reload() (*control.Reloaded, error) { return n.settings.reload() }
