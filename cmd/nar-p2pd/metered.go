package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/metered"
)

// line is whether the machine's connection is paid for by volume: then nothing is
// shared, announced or done ahead of need; what Nix asks for is fetched as ever.
type line struct {
	settings *reloader
	// obey is called with each change, one at a time.
	obey func(metered bool)
	log  *zap.Logger
	// changed has a signal when the settings have changed.
	changed chan struct{}

	// obeyed is what was last obeyed.
	obeyed atomic.Bool

	mu      sync.Mutex
	verdict metered.Verdict
}

func newLine(settings *reloader, obey func(metered bool), log *zap.Logger) *line {
	return &line{
		settings: settings, obey: obey, log: log, changed: make(chan struct{}, 1),
		verdict: metered.Verdict{Unknown: "not asked yet"},
	}
}

// change has the settings looked at again.
func (l *line) change() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Run follows the settings, and NetworkManager where they leave it to that, until ctx
// ends.
func (l *line) Run(ctx context.Context) error {
	for {
		l.hear(metered.Verdict{Unknown: "not asked yet"})
		asking, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() {
			if l.settings.current().Metered != config.MeteredAuto {
				<-asking.Done()
				ended <- asking.Err()
				return
			}
			ended <- metered.Watch(asking, metered.Config{}, l.hear, l.log)
		}()
		select {
		case <-l.changed:
		case <-ctx.Done():
		}
		stop()
		if err := <-ended; ctx.Err() != nil || !errors.Is(err, context.Canceled) {
			return err
		}
	}
}

// hear takes note of what NetworkManager says, which counts where the settings leave
// it to that.
func (l *line) hear(v metered.Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.verdict = v
	now := l.metered()
	if l.obeyed.Swap(now) == now {
		return
	}
	if now {
		l.log.Info("the connection is metered: nothing is shared or done in the background, only fetched")
	} else {
		l.log.Info("the connection is not metered any more")
	}
	l.obey(now)
}

// metered is what counts now; mu is held.
func (l *line) metered() bool {
	switch l.settings.current().Metered {
	case config.MeteredYes:
		return true
	case config.MeteredNo:
		return false
	default:
		return l.verdict.Metered
	}
}

// rests reports whether what can wait is to wait.
func (l *line) rests() bool { return l.obeyed.Load() }

func (l *line) status() control.Metered {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := control.Metered{Setting: l.settings.current().Metered, Now: l.rests()}
	if s.Setting == config.MeteredAuto {
		s.Unknown = l.verdict.Unknown
	}
	return s
}
