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
	"github.com/nar-p2p/nar-p2p/internal/moment"
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

	mu     sync.Mutex
	paused bool
	// until is when a pause ends, or none where the owner ends it.
	until moment.Deadline
	// metered is kept apart: a restart asks anew.
	metered bool
}

// keptSharing is the switch on the disk.
type keptSharing struct {
	Paused bool `json:"paused"`
	moment.Kept
}

// sharingKey is where in the bucket the switch is kept.
const sharingKey = "sharing"

func newSharing(db *state.DB, node *p2p.Node, hub *events.Hub, log *zap.Logger) *sharing {
	s := &sharing{bucket: db.Bucket("daemon"), events: hub, log: log, node: node, changed: make(chan struct{}, 1)}
	var kept keptSharing
	data, err := s.bucket.Get([]byte(sharingKey))
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		log.Warn("not known whether sharing was paused: it is not", zap.Error(err))
	}
	if until := kept.Recall(); kept.Paused && !until.Over() {
		s.paused, s.until = true, until
	}
	if db.Forgetful() {
		log.Warn("neither whether sharing was paused nor who is banned can be read: it is paused")
		s.paused, s.until = true, moment.Deadline{}
	}
	s.apply()
	return s
}

// apply does what now says; mu is held, or nobody else is there.
func (s *sharing) apply() {
	if s.node != nil {
		s.node.Pause(s.paused || s.metered)
	}
	if s.paused {
		s.log.Info("sharing is paused", zap.Time("until", s.until.Time()))
	}
}

// rest ends sharing while the connection is metered.
func (s *sharing) rest(metered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metered = metered
	if s.node != nil {
		s.node.Pause(s.paused || s.metered)
	}
	now := s.said()
	s.events.Publish(events.Event{Kind: events.KindSharing, Sharing: &now})
}

// said is what is told of the switch; mu is held.
func (s *sharing) said() control.Sharing {
	return control.Sharing{Paused: s.paused, Until: s.until.Time().Round(time.Second), Metered: s.metered}
}

func (s *sharing) state() control.Sharing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said()
}

// set keeps the switch and obeys it.
func (s *sharing) set(paused bool, until moment.Deadline) (control.Sharing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused && !paused {
		s.log.Info("sharing goes on")
	}
	s.paused, s.until = paused, until
	s.apply()
	said := s.said()
	s.events.Publish(events.Event{Kind: events.KindSharing, Sharing: &said})
	select {
	case s.changed <- struct{}{}:
	default:
	}
	data, err := json.Marshal(keptSharing{paused, until.Keep()})
	if err == nil {
		err = s.bucket.Put([]byte(sharingKey), data, 0)
	}
	if err != nil {
		return said, &control.Error{Status: 500, Message: "done, but a restart will forget it: " + err.Error()}
	}
	return said, nil
}

// end is when a pause ends.
func (s *sharing) end() moment.Deadline {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until
}

// Run ends a pause in time.
func (s *sharing) Run(ctx context.Context) error {
	for {
		look := time.NewTimer(lookAtPause)
		if until := s.end(); until.IsZero() {
			look.Stop()
		} else if left := until.Left(); left < lookAtPause {
			look.Reset(max(left, 0))
		}
		select {
		case <-look.C:
		case <-s.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		look.Stop()
		if !s.end().Over() {
			continue
		}
		if _, err := s.set(false, moment.Deadline{}); err != nil {
			s.log.Warn("the end of the pause is not kept", zap.Error(err))
		}
	}
}

// Pause implements control.Node.
func (n node) Pause(d time.Duration) (control.Sharing, error) {
	if !n.serves() {
		return control.Sharing{}, errSharesNothing(n.cfg.Profile)
	}
	var until moment.Deadline
	if d > 0 {
		until = moment.In(d)
	}
	return n.sharing.set(true, until)
}

// Resume implements control.Node.
func (n node) Resume() (control.Sharing, error) {
	if !n.serves() {
		return control.Sharing{}, errSharesNothing(n.cfg.Profile)
	}
	return n.sharing.set(false, moment.Deadline{})
}
