package upstream

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// slowReader gives so many bytes after each pause, and ends with its context.
type slowReader struct {
	done  <-chan struct{}
	pause time.Duration
	bytes int
}

func (s slowReader) Read(p []byte) (int, error) {
	select {
	case <-time.After(s.pause):
		return min(s.bytes, len(p)), nil
	case <-s.done:
		return 0, context.Canceled
	}
}

func TestProgress(t *testing.T) {
	for _, tt := range []struct {
		name    string
		pause   time.Duration
		bytes   int
		stalled bool
	}{
		{"fast", time.Millisecond, 64 << 10, false},
		{"slow line, 2 kB/s", time.Second, 2 << 10, false},
		{"silent", time.Hour, 1, true},
		{"a byte now and then", 5 * time.Second, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				r := &progressReader{r: slowReader{ctx.Done(), tt.pause, tt.bytes}, cancel: cancel}
				_, err := io.CopyN(io.Discard, r, 1<<20)
				if stalled := errors.Is(err, errStalled); stalled != tt.stalled {
					t.Errorf("error %v, want stalled: %v", err, tt.stalled)
				}
			})
		})
	}
}

func TestOurOwnPausesDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := &progressReader{r: slowReader{ctx.Done(), time.Second, 10}, cancel: cancel}
		for range 10 {
			if _, err := r.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
	})
}
