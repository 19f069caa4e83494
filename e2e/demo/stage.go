package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// stage lets a lab run outside of a test: it is what a lab needs of one.
type stage struct {
	ctx      context.Context //nolint:containedctx // lab.T hands the context out, as testing.T does.
	cleanups []func()
	failure  error
}

var _ lab.T = (*stage)(nil)

func newStage(ctx context.Context) *stage { return &stage{ctx: ctx} }

// play runs f in a goroutine of its own, which Fatal ends, and then the
// clean-ups, last first.
func (s *stage) play(f func(*stage) error) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(s); err != nil {
			s.failure = err
		}
	}()
	<-done
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
	return s.failure
}

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
