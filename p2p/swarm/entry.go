package swarm

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

// entry is a session with a provider that has said which manifest it has.
type entry struct {
	attempt *attempt
	session *exchange.Session
	trusted bool
	root    chunk.Root
	known   bool
	// claimed says that it was asked for the manifest.
	claimed bool
	// trip is how long it took to answer.
	trip time.Duration
}

// enter opens a session with a provider and asks for the manifest where that is
// due.
func (a *attempt) enter(ctx context.Context, p peer.ID) (*entry, error) {
	s, err := a.open(ctx, p)
	if err != nil {
		return nil, err
	}
	e := &entry{attempt: a, session: s}
	if a.plan.implicit() {
		return e, nil // The run travels with the opening.
	}
	if err := a.introduce(e); err != nil {
		if e.claimed {
			a.plan.unclaim(p)
		}
		_ = s.Close()
		return nil, err
	}
	return e, nil
}

func (a *attempt) introduce(e *entry) (err error) {
	s := e.session
	p, addr := s.Peer(), s.RemoteAddr()
	if e.trusted = a.swarm.trusted(p, addr); !e.trusted {
		a.polled.Do(func() { a.running.Go(a.poll) })
	}
	begun := time.Now()
	// The request travels with the opening where it does not depend on the answer.
	picky := a.prefer != preference{} || a.doubtful(p)
	if e.claimed = !picky && a.plan.claim(p, e.trusted); e.claimed {
		err = s.AskManifest()
	}
	var openErr error
	e.root, e.known, openErr = s.Opened()
	if err = cmp.Or(openErr, err); err != nil {
		return err
	}
	e.trip = time.Since(begun)
	if e.known {
		a.votes.add(e.root, addr, e.trusted)
		a.plan.expect(p, e.root)
	}
	if err := a.agrees(e); err != nil {
		return err
	}
	if picky && a.sends(e) && a.plan.claim(p, e.trusted) {
		e.claimed = true
		return s.AskManifest()
	}
	return nil
}

// agrees reports, as an error, that a provider has another manifest.
func (a *attempt) agrees(e *entry) error {
	root, complete := a.plan.known()
	switch {
	case !e.known:
	case a.doubts(e.root), complete && e.root != root, a.prefer.known && e.root != a.prefer.root:
		return errDisagrees
	}
	return nil
}

// sends reports whether a provider may be asked for the manifest.
func (a *attempt) sends(e *entry) bool {
	p := e.session.Peer()
	switch {
	case a.doubtful(p):
		return false
	case a.prefer.sender != "":
		return p == a.prefer.sender
	case a.prefer.known:
		return e.known && e.root == a.prefer.root
	default:
		return true
	}
}

// receive receives the manifest.
func (e *entry) receive() error {
	a := e.attempt
	err := a.plan.receive(e.session, e.trusted)
	if err == nil {
		if root, complete := a.plan.known(); complete {
			a.votes.add(root, e.session.RemoteAddr(), e.trusted)
		}
		return nil
	}
	if _, trusted := a.plan.source(); errors.Is(err, errDisagrees) && e.trusted && !trusted {
		select {
		case a.override <- e.session.Peer():
		default:
		}
	}
	return err
}

// manifestFrom asks one provider for the manifest.
func (a *attempt) manifestFrom(ctx context.Context, p peer.ID) error {
	s, err := a.open(ctx, p)
	if err != nil {
		return err
	}
	defer s.Close()
	e := &entry{attempt: a, session: s, trusted: a.swarm.trusted(p, s.RemoteAddr())}
	if e.root, e.known, err = s.Opened(); err != nil {
		return err
	}
	if err := a.agrees(e); err != nil {
		return err
	}
	if !a.sends(e) || !a.plan.claim(p, e.trusted) {
		return nil
	}
	if err := s.AskManifest(); err != nil {
		a.plan.unclaim(p)
		return err
	}
	return e.receive()
}
