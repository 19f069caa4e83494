package main

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/narstore/state"
	"github.com/nar-p2p/nar-p2p/p2p"
)

// announceInterval is how often it is looked how far announcing has come, while
// anybody listens.
const announceInterval = 5 * time.Second

// Subscribe implements control.Node.
func (n node) Subscribe() (*events.Subscription, error) { return n.events.Subscribe() }

// Days implements control.Node.
func (n node) Days(ctx context.Context, days int) ([]meter.Day, error) {
	return n.meter.Days(ctx, days)
}

// followPeers tells who listens of the peers that come and go.
func (d *daemon) followPeers(ctx context.Context) error {
	return d.node.FollowPeers(ctx, func(p p2p.PeerStatus, connected bool) {
		if !d.events.Watched() {
			return
		}
		d.events.Publish(events.Event{Kind: events.KindPeer, Peer: &events.Peer{
			ID: p.ID.String(), Connected: connected, Exchange: p.Exchange, LAN: p.LAN, Relayed: p.Relayed,
			Agent: p.Agent, Addresses: texts(p.Addrs),
		}})
	})
}

// followAnnouncing tells who listens how far announcing has come.
func (d *daemon) followAnnouncing(ctx context.Context) error {
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	var last events.Announce
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !d.events.Watched() {
			continue
		}
		a := d.node.Status().Announcing
		if a == nil {
			continue
		}
		if now := (events.Announce{Keys: a.Keys, Waiting: a.Waiting, SentBytes: a.SentBytes}); now != last {
			d.events.Publish(events.Event{Kind: events.KindAnnounce, Announce: &now})
			last = now
		}
	}
}

// lookAtPause is how often it is looked whether a pause is over: a timer stands
// still while a laptop sleeps.
const lookAtPause = time.Minute

// sharing is the owner's switch. It is kept on the disk: whoever has paused a
// laptop in a café does not want it to share again because it was restarted.
type sharing struct {
	bucket *state.Bucket
	events *events.Hub
	log    *zap.Logger
	// node is nil in profile off.
	node *p2p.Node
	// changed has a signal when Run is to look at now again.
	changed chan struct{}

	mu  sync.Mutex
	now control.Sharing
	// metered is kept apart: a restart asks anew.
	metered bool
}

// sharingKey is where in the bucket the switch is kept.
const sharingKey = "sharing"

func newSharing(db *state.DB, node *p2p.Node, hub *events.Hub, log *zap.Logger) *sharing {
	s := &sharing{bucket: db.Bucket("daemon"), events: hub, log: log, node: node, changed: make(chan struct{}, 1)}
	data, err := s.bucket.Get([]byte(sharingKey))
	if err == nil {
		err = json.Unmarshal(data, &s.now)
	}
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		log.Warn("not known whether sharing was paused: it is not", zap.Error(err))
	}
	if s.over(time.Now()) {
		s.now = control.Sharing{}
	}
	if db.Forgetful() {
		log.Warn("neither whether sharing was paused nor who is banned can be read: it is paused")
		s.now = control.Sharing{Paused: true}
	}
	s.apply()
	return s
}

// over reports whether a pause has come to its end.
func (s *sharing) over(now time.Time) bool {
	return s.now.Paused && !s.now.Until.IsZero() && !now.Before(s.now.Until)
}

// apply does what now says; mu is held, or nobody else is there.
func (s *sharing) apply() {
	if s.node != nil {
		s.node.Pause(s.now.Paused || s.metered)
	}
	if s.now.Paused {
		s.log.Info("sharing is paused", zap.Time("until", s.now.Until))
	}
}

// rest ends sharing while the connection is metered.
func (s *sharing) rest(metered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metered = metered
	if s.node != nil {
		s.node.Pause(s.now.Paused || s.metered)
	}
	now := s.said()
	s.events.Publish(events.Event{Kind: events.KindSharing, Sharing: &now})
}

// said is what is told of the switch; mu is held.
func (s *sharing) said() control.Sharing {
	said := s.now
	said.Metered = s.metered
	return said
}

func (s *sharing) state() control.Sharing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said()
}

// set keeps the switch and obeys it.
func (s *sharing) set(to control.Sharing) (control.Sharing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Paused && !to.Paused {
		s.log.Info("sharing goes on")
	}
	s.now = to
	s.apply()
	said := s.said()
	s.events.Publish(events.Event{Kind: events.KindSharing, Sharing: &said})
	select {
	case s.changed <- struct{}{}:
	default:
	}
	data, err := json.Marshal(to)
	if err == nil {
		err = s.bucket.Put([]byte(sharingKey), data, 0)
	}
	if err != nil {
		return said, &control.Error{Status: 500, Message: "done, but a restart will forget it: " + err.Error()}
	}
	return said, nil
}

// Run ends a pause in time.
func (s *sharing) Run(ctx context.Context) error {
	for {
		look := time.NewTimer(lookAtPause)
		if now := s.state(); now.Until.IsZero() {
			look.Stop()
		} else if left := time.Until(now.Until); left < lookAtPause {
			look.Reset(max(left, 0))
		}
		select {
		case <-look.C:
		case <-s.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		look.Stop()
		s.mu.Lock()
		over := s.over(time.Now())
		s.mu.Unlock()
		if !over {
			continue
		}
		if _, err := s.set(control.Sharing{}); err != nil {
			s.log.Warn("the end of the pause is not kept", zap.Error(err))
		}
	}
}

// Pause implements control.Node.
func (n node) Pause(d time.Duration) (control.Sharing, error) {
	if !n.serves() {
		return control.Sharing{}, errSharesNothing(n.cfg.Profile)
	}
	to := control.Sharing{Paused: true}
	if d > 0 {
		to.Until = time.Now().Add(d).Round(time.Second)
	}
	return n.sharing.set(to)
}

// Resume implements control.Node.
func (n node) Resume() (control.Sharing, error) {
	if !n.serves() {
		return control.Sharing{}, errSharesNothing(n.cfg.Profile)
	}
	return n.sharing.set(control.Sharing{})
}
