package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/schedule"
	"github.com/nar-p2p/nar-p2p/internal/throttle"
)

// lookAtSchedule is how often it is looked which limits count, where there is a
// schedule: a timer stands still while a laptop sleeps.
const lookAtSchedule = time.Minute

// limits sees to it that the limits count that the settings want at this time of
// the week.
type limits struct {
	settings *reloader
	upload   func(bytesPerSecond int64)
	download *throttle.Throttle
	log      *zap.Logger
	// changed has a signal when the settings have changed.
	changed chan struct{}
}

func newLimits(settings *reloader, upload func(int64), download *throttle.Throttle, log *zap.Logger) *limits {
	return &limits{settings: settings, upload: upload, download: download, log: log, changed: make(chan struct{}, 1)}
}

// at returns the limits that count at a moment, and the index of the entry of the
// schedule that says so, or -1.
func (l *limits) at(t time.Time) (now schedule.Limits, which int) {
	cfg := l.settings.current()
	return schedule.At(t, withoutSchedule(cfg), cfg.Schedule)
}

func withoutSchedule(cfg *config.Config) schedule.Limits {
	return schedule.Limits{Upload: cfg.P2P.UploadLimit, Download: cfg.Fetch.DownloadLimit}
}

// change has the settings looked at again.
func (l *limits) change() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Run obeys the schedule until ctx ends.
func (l *limits) Run(ctx context.Context) error {
	var last schedule.Limits
	for first := true; ; first = false {
		t := time.Now()
		now, _ := l.at(t)
		if first || now != last {
			l.upload(now.Upload)
			l.download.Limit(now.Download)
		}
		if !first && now != last {
			l.log.Info("other limits count now", zap.Int64("uploadPerSecond", now.Upload), zap.Int64("downloadPerSecond", now.Download))
		}
		last = now
		look := time.NewTimer(lookAtSchedule)
		if len(l.settings.current().Schedule) == 0 {
			look.Stop()
		} else if next := t.Truncate(time.Minute).Add(time.Minute); time.Until(next) < lookAtSchedule {
			look.Reset(time.Until(next))
		}
		select {
		case <-look.C:
		case <-l.changed:
		case <-ctx.Done():
		}
		look.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// status is nil where nothing is limited at any time.
func (l *limits) status() *control.Limits {
	cfg, t := l.settings.current(), time.Now()
	now, which := l.at(t)
	if now == (schedule.Limits{}) && len(cfg.Schedule) == 0 {
		return nil
	}
	status := &control.Limits{Upload: now.Upload, Download: now.Download, Until: schedule.Until(t, withoutSchedule(cfg), cfg.Schedule)}
	if which >= 0 {
		status.Schedule = config.ScheduleText(cfg.Schedule[which])
	}
	return status
}
