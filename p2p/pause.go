package p2p

import (
	"context"
	"sync"
)

// pause is whether sharing is paused.
type pause struct {
	mu     sync.Mutex
	paused bool
	// changed is closed, and replaced, when that changes.
	changed chan struct{}
}

func newPause() *pause { return &pause{changed: make(chan struct{})} }

// state returns whether sharing is paused, and what is closed when that changes.
func (p *pause) state() (paused bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused, p.changed
}

// renew has those who follow the state look at it again.
func (p *pause) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// Pause ends sharing until it is called with false: peers get no answer, what
// they are being sent is broken off, and nothing is announced. What they know
// already they know: records stay in the DHT for up to 48 hours. Fetching goes
// on.
func (n *Node) Pause(paused bool) {
	n.pause.mu.Lock()
	if n.pause.paused != paused {
		n.pause.paused = paused
		close(n.pause.changed)
		n.pause.changed = make(chan struct{})
	}
	n.pause.mu.Unlock()
	if l := n.live.Load(); l != nil {
		l.obeyPause()
	}
}

// BytesServed is how much peers were sent of NARs since the start, in bytes.
func (n *Node) BytesServed() int64 {
	if l := n.live.Load(); l != nil && l.server != nil {
		return l.server.Stats().BytesServed
	}
	return 0
}

// obeyPause tells the server.
func (l *live) obeyPause() {
	if l.server != nil {
		paused, _ := l.pause.state()
		l.server.Pause(paused)
	}
}

// announce announces while sharing is not paused, and begins anew where what it may
// send has changed. An announcer runs once: what it has sent is remembered on the
// disk, and so the next one does not send it again.
func (l *live) announce(ctx context.Context) error {
	for {
		paused, changed := l.pause.state()
		if paused {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		announcer := l.newAnnouncer()
		l.announcer.Store(announcer)
		run, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			select {
			case <-changed:
			case <-run.Done():
			}
			stop()
		}()
		err := announcer.Run(run)
		l.announcer.Store(nil)
		stop()
		<-ended
		if _, now := l.pause.state(); ctx.Err() != nil || now == changed {
			return err
		}
	}
}
