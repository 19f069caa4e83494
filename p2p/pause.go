package p2p

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

// pause is whether sharing is paused.
type pause struct {
	mu     sync.Mutex
	paused bool
	// away is the interface to the internet, where nothing is to be shared there:
	// then it is pointless to announce anything. Who comes by another one is answered.
	away string
	// changed is closed, and replaced, when that changes.
	changed chan struct{}
}

func newPause() *pause { return &pause{changed: make(chan struct{})} }

// state returns whether nothing is to be announced, and what is closed when that
// changes.
func (p *pause) state() (quiet bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused || p.away != "", p.changed
}

// reasons returns why that is so.
func (p *pause) reasons() (paused bool, away string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused, p.away
}

// leave takes note of the interface to the internet on which nothing is shared, ""
// for none, and reports whether that is new.
func (p *pause) leave(away string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away == away {
		return false
	}
	p.away = away
	close(p.changed)
	p.changed = make(chan struct{})
	return true
}

// watchSite follows which interface leads to the internet, until ctx ends.
func (n *Node) watchSite(ctx context.Context) error {
	tick := time.NewTicker(interfaceInterval)
	defer tick.Stop()
	for {
		name, ban := n.sites.Outward()
		if !ban.Share {
			name = ""
		}
		if n.pause.leave(name) {
			n.log.Info("where to share has changed", zap.Bool("shared", name == ""), zap.String("notOn", name))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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
		paused, _ := l.pause.reasons()
		l.server.Pause(paused)
	}
}

// announce announces while sharing is not paused, and begins anew where what it may
// send has changed. An announcer runs once: what it has sent is remembered on the
// disk, and so the next one does not send it again.
func (l *live) announce(ctx context.Context) error {
	for {
		quiet, changed := l.pause.state()
		if quiet {
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
