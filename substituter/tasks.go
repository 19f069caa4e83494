package substituter

import (
	"context"
	"sync"
)

// tasks counts requests and the work that outlives them.
type tasks struct {
	mu      sync.Mutex
	running int
	closed  bool
	idle    chan struct{} // closed while running is 0
}

func newTasks() *tasks {
	t := &tasks{idle: make(chan struct{})}
	close(t.idle)
	return t
}

// request begins a request; false means that no more are taken.
func (t *tasks) request() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.add()
	return true
}

// begin begins a part of a request that may outlive it.
func (t *tasks) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add()
}

func (t *tasks) add() {
	if t.running == 0 {
		t.idle = make(chan struct{})
	}
	t.running++
}

func (t *tasks) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running--; t.running == 0 {
		close(t.idle)
	}
}

func (t *tasks) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// wait returns when nothing runs, or with ctx's error.
func (t *tasks) wait(ctx context.Context) error {
	t.mu.Lock()
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
