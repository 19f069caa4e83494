package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
)

// Play runs f in a lab outside of a test, and removes everything when f has
// returned or ctx has ended and f has noticed.
func Play(ctx context.Context, f func(*Lab) error) error {
	s := &stage{ctx: ctx}
	defer Clean()
	// Fatal ends the goroutine that it is called in.
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(New(s)); err != nil {
			s.failure = err
		}
	}()
	<-done
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
	return s.failure
}

// stage is what a lab needs of a test.
type stage struct {
	ctx      context.Context //nolint:containedctx // T hands the context out, as testing.T does.
	cleanups []func()
	failure  error
}

var _ T = (*stage)(nil)

func (s *stage) Helper()                  {}
func (s *stage) Context() context.Context { return s.ctx }
func (s *stage) Cleanup(f func())         { s.cleanups = append(s.cleanups, f) }
func (s *stage) Failed() bool             { return s.failure != nil }

func (s *stage) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (s *stage) Fatalf(format string, args ...any) {
	s.failure = fmt.Errorf(format, args...)
	runtime.Goexit()
}

func (s *stage) Fatal(args ...any) {
	s.failure = errors.New(fmt.Sprint(args...))
	runtime.Goexit()
}
