package host

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
)

// punchDialTimeout bounds each dial of a hole punch: one straight to the other
// side, in case it can be reached after all, and then punchAttempts from both sides
// at once. libp2p's own 10 s keep the second waiting for longer than a request
// does. It is several round trips around the world.
const (
	punchDialTimeout = 2 * time.Second
	punchAttempts    = 3
)

// maxPunches bounds the peers with whom punches are followed.
const maxPunches = 256

// punching lets the host punch holes and tells of the outcome.
func punching(cfg *Config) libp2p.Option {
	t := &punchTracer{outcome: cfg.Punched, failures: make(map[peer.ID]int)}
	traced := holepunch.WithTracer(t)
	if cfg.Registerer != nil {
		traced = holepunch.WithMetricsAndEventTracer(holepunch.NewMetricsTracer(holepunch.WithRegisterer(cfg.Registerer)), t)
	}
	return libp2p.EnableHolePunching(holepunch.DirectDialTimeout(punchDialTimeout), traced)
}

// punchTracer hears of each attempt, on either side.
type punchTracer struct {
	outcome func(p peer.ID, ok bool)

	mu       sync.Mutex
	failures map[peer.ID]int
}

var _ holepunch.EventTracer = (*punchTracer)(nil)

// Trace tells of a punch that has succeeded, or failed for the last time.
func (t *punchTracer) Trace(e *holepunch.Event) {
	end, ok := e.Evt.(*holepunch.EndHolePunchEvt)
	if !ok || t.outcome == nil {
		return
	}
	if t.ended(e.Remote, end.Success) {
		t.outcome(e.Remote, end.Success)
	}
}

// ended counts an attempt, and reports whether it was the last.
func (t *punchTracer) ended(p peer.ID, ok bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.failures) >= maxPunches {
		clear(t.failures)
	}
	t.failures[p]++
	last := ok || t.failures[p] >= punchAttempts
	if last {
		delete(t.failures, p)
	}
	return last
}
