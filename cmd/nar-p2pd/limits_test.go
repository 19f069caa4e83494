package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/schedule"
	"github.com/nar-p2p/nar-p2p/internal/throttle"
)

// The limits follow the schedule to the minute, and the settings at once.
func TestLimitsFollowTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// It begins at midnight UTC on the 1st of January 2000; the local time may be
		// another one.
		begin := time.Now()
		minute := func(d time.Duration) int {
			at := begin.Add(d)
			return 60*at.Hour() + at.Minute()
		}
		cfg := &config.Config{
			P2P: config.P2P{UploadLimit: 10 << 20},
			Schedule: []schedule.Entry{{
				Days: schedule.EveryDay, From: minute(time.Hour), To: minute(3 * time.Hour),
				Limits: schedule.Limits{Upload: 1 << 20, Download: 2 << 20},
			}},
		}
		settings := newReloader(cfg, nil, zap.NewNop())
		var upload, set atomic.Int64
		downloads := throttle.New(0)
		l := newLimits(settings, func(n int64) { upload.Store(n); set.Add(1) }, downloads, zap.NewNop())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		expect := func(up, download int64, until time.Duration) {
			t.Helper()
			synctest.Wait()
			if got := upload.Load(); got != up || downloads.PerSecond() != download {
				t.Errorf("after %v: upload %d, download %d, want %d and %d", time.Since(begin), got, downloads.PerSecond(), up, download)
			}
			if s := l.status(); s.Upload != up || s.Download != download || !s.Until.Equal(begin.Add(until)) || (s.Schedule != "") != (download > 0) {
				t.Errorf("after %v the status is %+v", time.Since(begin), s)
			}
		}
		expect(10<<20, 0, time.Hour)
		time.Sleep(time.Hour)
		expect(1<<20, 2<<20, 3*time.Hour)
		time.Sleep(2 * time.Hour)
		expect(10<<20, 0, 25*time.Hour)
		if n := set.Load(); n != 3 {
			t.Errorf("the limit was set %d times, want 3", n)
		}

		again := *cfg
		again.Schedule, again.P2P.UploadLimit, again.Fetch.DownloadLimit = nil, 0, 5<<20
		settings.now.Store(&again)
		l.change()
		synctest.Wait()
		if got := upload.Load(); got != 0 || downloads.PerSecond() != 5<<20 {
			t.Errorf("upload %d, download %d after a change of the settings", got, downloads.PerSecond())
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}
