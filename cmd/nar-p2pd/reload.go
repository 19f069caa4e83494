package main

import (
	"context"
	"maps"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
)

// reloader knows what the daemon runs with, and brings in what can be changed
// while it does.
type reloader struct {
	// load reads the settings again, from where they came at the start.
	load func() (*config.Config, error)
	// apply has the functions that bring in a key's new value.
	apply map[string]func(*config.Config) error
	log   *zap.Logger

	mu  sync.Mutex
	now *config.Config
}

func newReloader(cfg *config.Config, load func() (*config.Config, error), log *zap.Logger) *reloader {
	now := *cfg
	now.Origins = maps.Clone(cfg.Origins)
	return &reloader{load: load, apply: make(map[string]func(*config.Config) error), log: log, now: &now}
}

// effective returns the settings that count now.
func (r *reloader) effective() []config.Effective {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now.Effective()
}

// reload reads the settings and applies what it can. Where they have a mistake
// nothing changes.
func (r *reloader) reload() (*control.Reloaded, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg, err := r.load()
	if err != nil {
		return nil, err
	}
	told := &control.Reloaded{Applied: []string{}, Restart: []string{}}
	for _, key := range config.Changes(r.now, cfg) {
		apply, can := r.apply[key]
		if !can {
			told.Restart = append(told.Restart, key)
			continue
		}
		if err := apply(cfg); err != nil {
			return nil, err
		}
		told.Applied = append(told.Applied, key)
	}
	if err := r.now.Adopt(cfg, told.Applied); err != nil {
		return nil, err
	}
	r.log.Info("settings read again", zap.Strings("applied", told.Applied), zap.Strings("needRestart", told.Restart))
	return told, nil
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

// Reload implements control.Node.
func (n node) Reload() (*control.Reloaded, error) { return n.settings.reload() }
