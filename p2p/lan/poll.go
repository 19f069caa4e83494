package lan

import (
	"context"
	"time"
)

// pollInterval is how often interfaces are looked at where the system does not
// tell of changes. It takes some 100 microseconds.
const pollInterval = 5 * time.Second

// poll has the interfaces looked at every now and then until ctx ends.
func poll(ctx context.Context, changes chan<- struct{}) error {
	for {
		if err := pause(ctx, pollInterval); err != nil {
			return err
		}
		change(changes)
	}
}

func change(changes chan<- struct{}) {
	select {
	case changes <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
