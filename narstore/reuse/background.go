package reuse

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// Background is how paths are indexed that nobody has asked for.
type Background struct {
	// Off leaves it.
	Off bool
	// MinSize is the size in bytes of the smallest NARs that are; 0 is 1 MiB. The
	// small ones are many, and quickly indexed when they are wanted.
	MinSize int64
	// Rate is how many bytes a second are read; 0 is 20 MB.
	Rate int64
	// Pause is how long the start of the node, and the store after a change, is
	// left alone; 0 is 5 minutes.
	Pause time.Duration
	// OnMains reports whether the machine does not run on a battery. Nil asks
	// Linux.
	OnMains func() bool
	// Rests reports whether nothing is to be indexed for the time being. Nil: that is
	// never so.
	Rests func() bool
}

const (
	defaultMinSize = 1 << 20
	defaultRate    = 20e6
	defaultPause   = 5 * time.Minute
	// maxBurst is how many bytes are read at once in the background.
	maxBurst = 256 << 10
	// fullShare is the part of the index, as a percentage, up to which it is filled
	// in the background: the rest is for what is wanted.
	fullShare = 80
)

func (b Background) withDefaults() Background {
	b.MinSize, b.Rate = cmp.Or(b.MinSize, defaultMinSize), cmp.Or(b.Rate, defaultRate)
	b.Pause = cmp.Or(b.Pause, defaultPause)
	if b.OnMains == nil {
		b.OnMains = func() bool { return onMains(powerSupplies) }
	}
	if b.Rests == nil {
		b.Rests = func() bool { return false }
	}
	return b
}

// indexInBackground indexes large paths, the largest last, again and again, as
// others appear.
func (x *Index) indexInBackground(ctx context.Context, settled <-chan struct{}) error {
	if x.cfg.Background.Off {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-settled:
	case <-ctx.Done():
		return ctx.Err()
	}
	ticker := time.NewTicker(x.cfg.Background.Pause)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := x.indexLarge(ctx); err != nil {
			return err
		}
	}
}

// indexLarge indexes the large paths that are not indexed yet. Paths that fail
// are tried again the next time, as they are seldom.
func (x *Index) indexLarge(ctx context.Context) error {
	cfg := &x.cfg.Background
	limiter := rate.NewLimiter(rate.Limit(cfg.Rate), maxBurst)
	large := x.kin.large(cfg.MinSize)
	slices.SortFunc(large, func(a, b member) int { return cmp.Compare(a.size, b.size) })
	for _, m := range large {
		switch {
		case x.indexed(m.part):
			continue
		case x.records.bytes() > x.cfg.MaxBytes/100*fullShare, !cfg.OnMains(), cfg.Rests():
			return nil
		}
		t, ok := x.claim(m)
		if !ok {
			continue
		}
		info, err := x.store.Info(ctx, m.part)
		if err == nil {
			err = x.index(ctx, info, inBackground, t.job, func(n int) error { return limiter.WaitN(ctx, n) })
		}
		x.finish(t)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			x.log.Debug("path not indexed in the background", zap.Stringer("hashPart", m.part), zap.Error(err))
		}
	}
	return nil
}

// claim makes a job of a path, unless it is one already.
func (x *Index) claim(m member) (task, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.jobs[m.part] != nil {
		return task{}, false
	}
	t := task{part: m.part, job: newJob(), mine: true}
	x.jobs[m.part] = t.job
	return t, true
}

// powerSupplies is where Linux tells of them.
const powerSupplies = "/sys/class/power_supply"

// onMains reports whether a supply other than a battery is on line, or there is
// no battery of the machine itself. What cannot be read is no battery.
func onMains(dir string) bool {
	supplies, err := os.ReadDir(dir)
	if err != nil {
		return true
	}
	attribute := func(supply, name string) string {
		b, err := os.ReadFile(filepath.Join(dir, supply, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	battery := false
	for _, s := range supplies {
		switch attribute(s.Name(), "type") {
		case "Battery":
			// Those of a mouse or a headset have scope Device.
			battery = battery || attribute(s.Name(), "scope") != "Device"
		case "Mains", "USB":
			if attribute(s.Name(), "online") == "1" {
				return true
			}
		}
	}
	return !battery
}
