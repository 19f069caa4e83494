package substituter

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/nar-p2p/nar-p2p/substituter/health"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// setup is what the owner has decided, and what follows from that. It does not
// change: Prepare makes another one, which takes its place.
type setup struct {
	Config
	// generation counts the setups, from firstGeneration on.
	generation uint64
	keys       trust.Keys // with those of the upstreams
	upstreams  []*mirror
}

// firstGeneration is no record's that was read from the disk.
const firstGeneration = 1

// setup returns the setup of now. Whoever looks at it twice may see two.
func (s *Server) setup() *setup { return s.configured.Load() }

func (s *Server) trusted() *trust.Keys { return &s.setup().keys }

// newSetup checks cfg and makes the setup that is to follow old, which is nil at
// first. The upstreams' own keys are trusted too: trust goes with the key and not
// with the way by which a record came, as in Nix.
func (s *Server) newSetup(cfg Config, old *setup) (*setup, error) {
	if cfg.Priority < 0 || cfg.Deadline < 0 || cfg.SpoolSize < 0 || cfg.MaxRecords < 0 {
		return nil, errors.New("substituter: negative priority, deadline, spool size or number of records")
	}
	now := &setup{Config: cfg, generation: firstGeneration, keys: trust.Keys{Trusted: slices.Clone(cfg.Trust.Trusted), Threshold: cfg.Trust.Threshold}}
	if old != nil {
		now.generation = old.generation + 1
	}
	now.Priority = orDefault(cfg.Priority, defaultPriority)
	now.Deadline = orDefault(cfg.Deadline, defaultDeadline)
	for _, cfg := range cfg.Upstreams {
		m, err := s.newMirror(cfg)
		if err != nil {
			return nil, err
		}
		if now.mirror(m.String()) != nil {
			return nil, fmt.Errorf("substituter: upstream %s is listed twice", m)
		}
		for _, key := range cfg.Keys {
			if !slices.Contains(now.Trust.Trusted, key) {
				m.private = true
				now.keys.Trusted = append(now.keys.Trusted, key)
			}
		}
		now.upstreams = append(now.upstreams, m.after(old))
	}
	return now, nil
}

// mirror returns the upstream with this address, or nil.
func (c *setup) mirror(address string) *mirror {
	if c == nil {
		return nil
	}
	for _, m := range c.upstreams {
		if m.String() == address {
			return m
		}
	}
	return nil
}

func (s *Server) newMirror(cfg upstream.Config) (*mirror, error) {
	client, err := upstream.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("substituter: %w", err)
	}
	return &mirror{
		Client: client, cfg: cfg, priority: cfg.Priority, private: client.Private(),
		traffic: s.traffic, log: s.log, wake: make(chan struct{}, 1), bucket: s.health,
	}, nil
}

// after returns what takes the upstream's place: where nothing has changed the one
// of before, with its connections; else one that knows how that has done.
func (m *mirror) after(old *setup) *mirror {
	before := old.mirror(m.String())
	switch {
	case before == nil:
		m.health = new(health.Tracker)
		m.recall()
	case before.private == m.private && reflect.DeepEqual(before.cfg, m.cfg):
		return before
	default:
		m.health = before.health
		m.open.Store(m.health.State().Open)
	}
	return m
}

// Prepare checks settings that are to take the place of those of before, and
// returns what puts them there. MaxRecords, SpoolDir and SpoolSize stay what they
// were. Requests under way go on as they began; but no record is used any more
// that is believed no longer. Of several that were prepared only the last may be
// put in place.
func (s *Server) Prepare(cfg Config) (commit func(), err error) {
	old := s.setup()
	cfg.MaxRecords, cfg.SpoolDir, cfg.SpoolSize = old.MaxRecords, old.SpoolDir, old.SpoolSize
	next, err := s.newSetup(cfg, old)
	if err != nil {
		return nil, err
	}
	return func() {
		s.records.doubt(next.generation, func() { s.configured.Store(next) })
		// Others may have what nobody had.
		s.absent.clear()
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}, nil
}

// tend attends to the upstreams, also to those that come later, until ctx ends.
func (s *Server) tend(ctx context.Context) error {
	var attending sync.WaitGroup
	defer attending.Wait()
	tended := make(map[*mirror]context.CancelFunc)
	for {
		now := s.setup()
		for m, stop := range tended {
			if !slices.Contains(now.upstreams, m) {
				stop()
				delete(tended, m)
			}
		}
		for _, m := range now.upstreams {
			if tended[m] != nil {
				continue
			}
			own, stop := context.WithCancel(ctx)
			tended[m] = stop
			attending.Go(func() {
				_ = m.attend(own, now.Deadline) // which ends without an error
				if ctx.Err() == nil {
					m.CloseIdleConnections()
				}
			})
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return nil
		}
	}
}
