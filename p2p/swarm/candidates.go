package swarm

import (
	"context"
	"iter"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// patience is how long a dial may take before the next provider is dialled
	// beside it: many that the DHT names have gone, and to find that out takes
	// long. RFC 8305 has the same time for the addresses of one host, for which
	// libp2p does the like.
	patience = 250 * time.Millisecond
	// maxDials is how many providers are dialled at once. With half of them gone
	// four were so at one time in 16, and then the rest waited for 15 s.
	maxDials = 8
	// maxAlike is how many providers of one address group are used before those of
	// others: identities are free.
	maxAlike = 3
	// shareTime is how long those of others are waited for.
	shareTime = time.Second
)

// candidates are the providers of a NAR that could be reached, in the order in
// which they were. Several goroutines can go through them, each at its own pace.
type candidates struct {
	// dial connects to a provider.
	dial func(context.Context, peer.AddrInfo) error
	// group returns the address group of a provider, if it belongs to one that
	// counts. It may be another once the provider is connected.
	group func(peer.AddrInfo) (netip.Prefix, bool)

	mu      sync.Mutex
	reached []peer.AddrInfo
	// alike counts those reached of a group, nil once that does not matter any
	// more; spare are those that were too many of theirs.
	alike map[netip.Prefix]int
	spare []peer.AddrInfo
	// dialling counts those that are being dialled, late those of them that have
	// outlasted patience, wanted how many reached ones were asked for.
	dialling, late, wanted int
	ended                  bool
	// changed is closed, and replaced, with every change.
	changed chan struct{}
}

func newCandidates(
	dial func(context.Context, peer.AddrInfo) error, group func(peer.AddrInfo) (netip.Prefix, bool),
) *candidates {
	return &candidates{dial: dial, group: group, alike: make(map[netip.Prefix]int), changed: make(chan struct{})}
}

// gather dials providers as they are found and wanted, until there are no more
// or ctx ends. Those of a group that has had its share wait for shareTime, or
// until there are no others.
func (c *candidates) gather(ctx context.Context, providers iter.Seq[peer.AddrInfo]) {
	ctx, cancel := context.WithCancel(ctx)
	found := make(chan peer.AddrInfo)
	var finder, dials sync.WaitGroup
	finder.Go(func() {
		defer close(found)
		for p := range providers {
			select {
			case found <- p:
			case <-ctx.Done():
				return
			}
		}
	})
	dialled := 0
	begin := func(p peer.AddrInfo) bool {
		if dialled++; dialled > maxCandidates || !c.await(ctx, c.begin) {
			return false
		}
		dials.Go(func() { c.reach(ctx, p) })
		return true
	}
	c.sift(found, begin)
	dials.Wait()
	cancel()
	finder.Wait()
	c.change(func() {
		c.spareAll()
		c.ended = true
	})
}

// sift begins with the providers found, until begin reports false or there are
// no more: first those whose group has not had its share.
func (c *candidates) sift(found <-chan peer.AddrInfo, begin func(peer.AddrInfo) bool) {
	shared := time.NewTimer(shareTime)
	defer shared.Stop()
	var later []peer.AddrInfo
	named := make(map[netip.Prefix]int)
	for ended := false; !ended; {
		select {
		case p, ok := <-found:
			if ended = !ok; ended {
				break
			}
			if g, ok := c.group(p); ok && named != nil {
				if named[g]++; named[g] > maxAlike {
					later = append(later, p)
					later = later[:min(len(later), maxCandidates)]
					break
				}
			}
			if !begin(p) {
				return
			}
		case <-shared.C:
			named = nil
			c.change(c.spareAll)
			for _, p := range later {
				if !begin(p) {
					return
				}
			}
			later = nil
		}
	}
	for _, p := range later {
		if !begin(p) {
			return
		}
	}
}

// spareAll ends the sharing out among groups; mu is held.
func (c *candidates) spareAll() {
	c.reached = append(c.reached, c.spare...)
	c.spare, c.alike = nil, nil
}

// reach dials one provider.
func (c *candidates) reach(ctx context.Context, p peer.AddrInfo) {
	timer := time.AfterFunc(patience, func() { c.change(func() { c.late++ }) })
	err := c.dial(ctx, p)
	inTime := timer.Stop()
	c.change(func() {
		c.dialling--
		if !inTime {
			c.late--
		}
		if err == nil {
			c.add(p)
		}
	})
}

// add adds a provider that was reached; mu is held.
func (c *candidates) add(p peer.AddrInfo) {
	if g, ok := c.group(p); ok && c.alike != nil {
		if c.alike[g]++; c.alike[g] > maxAlike {
			c.spare = append(c.spare, p)
			return
		}
	}
	c.reached = append(c.reached, p)
}

// begin counts another dial, where one is wanted.
func (c *candidates) begin() bool {
	promising := len(c.reached) + c.dialling - c.late
	if promising >= c.wanted || c.dialling == maxDials {
		return false
	}
	c.dialling++
	return true
}

// change makes a change and wakes those who wait for one.
func (c *candidates) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// await waits until the condition is true, and reports false where ctx ends
// before.
func (c *candidates) await(ctx context.Context, condition func() bool) bool {
	for ctx.Err() == nil {
		c.mu.Lock()
		met, changed := condition(), c.changed
		c.mu.Unlock()
		if met {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return false
}

// at returns the i-th candidate. It waits for it until ctx ends.
func (c *candidates) at(ctx context.Context, i int) (p peer.AddrInfo, ok bool) {
	c.change(func() { c.wanted = max(c.wanted, i+1) })
	c.await(ctx, func() bool {
		if i < len(c.reached) {
			p, ok = c.reached[i], true
		}
		return ok || c.ended
	})
	return p, ok
}
