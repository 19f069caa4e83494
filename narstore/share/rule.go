package share

import (
	"context"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// rule says which policy the rows of a catalog were judged by.
type rule struct {
	// number counts the policies; changed is closed, and replaced, when it changes.
	number  uint64
	changed chan struct{}
	// listing is true while the store is being read again for that reason.
	listing bool
}

// Policy returns the policy that counts now.
func (c *Catalog) Policy() *Policy { return c.policy.Load() }

// Apply puts another policy in the place of the one before. What it forbids does
// not exist for peers from then on, whatever they are in the middle of; it is taken
// out of the catalog, and what it newly allows is put in, as the store is read
// again. What is allowed as before is there all the time.
func (c *Catalog) Apply(policy *Policy) error {
	if err := policy.Validate(); err != nil {
		return err
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policy.Store(policy)
	for i := range c.index.rows {
		c.index.rows[i].doubtful, c.index.rows[i].unlisted = true, true
	}
	c.awaited = make(map[nix.HashPart]referrers)
	c.rule.number++
	c.rule.listing = true
	close(c.rule.changed)
	c.rule.changed = make(chan struct{})
	return nil
}

// ruleNow returns the number of the rule, and what is closed when that changes.
func (c *Catalog) ruleNow() (number uint64, changed <-chan struct{}) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.rule.number, c.rule.changed
}

// followStore follows the store until ctx ends or the rule is another one.
func (c *Catalog) followStore(ctx context.Context, number uint64, changed <-chan struct{}) error {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-changed:
		case <-ctx.Done():
		}
		stop()
	}()
	err := c.store.Follow(ctx, func(u narstore.Update) error { return c.apply(ctx, u, number) })
	stop()
	<-ended
	return err
}

// judge finds out about a path, that somebody asks for, what the listing has not
// come to yet.
func (c *Catalog) judge(part nix.HashPart, hash nix.NARHash) {
	number, _ := c.ruleNow()
	ctx, cancel := context.WithTimeout(context.Background(), goneTimeout)
	defer cancel()
	info, err := c.store.Info(ctx, part)
	if err != nil {
		c.log.Debug("not known whether a path may still be shared", zap.Stringer("hashPart", part), zap.Error(err))
		return
	}
	allowed := info.NARHash == hash && c.policy.Load().Check(info) == nil
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.index.find(part)
	if at == none || number != c.rule.number || c.index.rows[at].hash != hash || !c.index.rows[at].doubtful {
		return // what was found out is out of date
	}
	if allowed {
		c.index.rows[at].doubtful = false
		return
	}
	c.generation++
	c.drop(part)
	c.wake()
}

// sweep takes out what has not come in the listing; c.mu is held.
func (c *Catalog) sweep() {
	for i := range c.index.rows {
		if r := &c.index.rows[i]; r.since != 0 && r.unlisted {
			c.drop(r.part)
		}
	}
}
