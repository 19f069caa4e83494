package substituter

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/nar-p2p/nar-p2p/substituter/health"
)

const (
	// attention is how long after the last request an upstream that fails is
	// probed. On a node of which nobody wants anything, nothing is probed.
	attention = 5 * time.Minute
	// staleAfter is how long an upstream may go without being asked until, at
	// the next request, it is probed: it might be the quickest by now.
	staleAfter = 15 * time.Minute
	// probeJitter is what a probe may come late, so that those of many nodes do
	// not come together.
	probeJitter = 250 * time.Millisecond
)

// rouse says that somebody would have liked to ask the upstream, and has it
// probed as long as it fails.
func (m *mirror) rouse() {
	m.demanded.Set(time.Now())
	m.signal()
}

// refresh says that somebody could have asked the upstream, of which there was
// last an answer at this time, and has it probed if that is long ago.
func (m *mirror) refresh(heard time.Time) {
	now := time.Now()
	if now.Sub(heard) > staleAfter && now.Sub(m.refreshed.Time()) > staleAfter {
		m.refreshed.Set(now)
		m.signal()
	}
}

func (m *mirror) signal() {
	select {
	case m.wake <- struct{}{}:
	default: // there is one already
	}
}

// attend greets the upstream, and probes it when it is told to, and as long as
// it fails and somebody wants it. So requests find out that it works again by asking
// others, and not by waiting.
func (m *mirror) attend(ctx context.Context, deadline time.Duration) error {
	m.greet(ctx, deadline)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		}
		for again := true; again; again = m.health.State().Open && m.wanted() {
			if !m.probeWhenDue(ctx, deadline) {
				return nil
			}
		}
	}
}

// greet asks an upstream that may be asked for the file that every cache has:
// once for the sake of a connection, which over TLS takes two round trips, and
// once for what it takes to answer. So the first request of Nix finds a
// connection, and the upstreams are known by their speed. That there is no
// answer means nothing: a laptop starts before its network does, and what is
// then said to be absent Nix takes for absent for an hour.
func (m *mirror) greet(ctx context.Context, deadline time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if m.health.State().Open || m.Probe(ctx) != nil {
		return
	}
	asked := time.Now()
	if err := m.Probe(ctx); err == nil {
		m.settle(ctx, askedProbe, asked, nil)
	}
}

// wanted reports whether somebody wants to ask the upstream these days.
func (m *mirror) wanted() bool {
	return time.Since(m.demanded.Time()) < attention
}

// probeWhenDue waits until the upstream may be asked, and asks it unless a
// request has been quicker. It returns false if ctx ends.
func (m *mirror) probeWhenDue(ctx context.Context, deadline time.Duration) bool {
	due := time.NewTimer(max(0, time.Until(m.health.State().Until)) + rand.N(probeJitter))
	defer due.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-due.C:
	}
	own, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if m.health.Admit() != health.Refused {
		m.probe(own)
	}
	return ctx.Err() == nil
}
