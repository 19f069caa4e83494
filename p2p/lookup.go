package p2p

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

const (
	// maxSearches bounds the lookups of narinfos in the DHT at once.
	maxSearches = 16
	// maxAsked bounds the providers of one narinfo that are asked at once.
	maxAsked = 4
	// narinfoTimeout bounds one request. narinfoPatience is how long the DHT is
	// left alone while connected peers may still answer.
	narinfoTimeout  = 4 * time.Second
	narinfoPatience = 300 * time.Millisecond
	// addressTTL is how long the addresses of a provider are remembered: who
	// has the narinfo will be asked for the NAR.
	addressTTL = 10 * time.Minute
)

var (
	// ErrNotRunning says that Run does not run.
	ErrNotRunning = errors.New("p2p: the node is not running")
	// ErrNotAnnouncing says that the node's profile tells the DHT nothing.
	ErrNotAnnouncing = errors.New("p2p: this profile announces nothing")
)

// Expect starts to look for the holders of a NAR that will probably be asked
// for.
func (n *Node) Expect(h nix.NARHash, strangers bool) {
	if l := n.live.Load(); l != nil {
		l.finder.Expect(h, n.strangers(strangers))
	}
}

// Known reports whether a holder of the NAR is known already.
func (n *Node) Known(h nix.NARHash) bool {
	l := n.live.Load()
	return l != nil && l.finder.Known(h)
}

// Open fetches a NAR from peers.
func (n *Node) Open(ctx context.Context, want swarm.Want) (*swarm.Transfer, error) {
	l := n.live.Load()
	if l == nil {
		return nil, ErrNotRunning
	}
	want.Strangers = n.strangers(want.Strangers)
	return l.swarm.Open(ctx, want)
}

// strangers adapts what a caller allows to the network: a private one has no
// strangers, so that all of its peers may always be asked.
func (n *Node) strangers(allowed bool) bool { return allowed || n.cfg.private() }

// Announce tells the DHT of the paths now and reports the outcome. That they
// stay announced is up to the shelf, which the node follows: what leaves it is
// no longer announced.
func (n *Node) Announce(ctx context.Context, paths ...share.Key) error {
	l := n.live.Load()
	switch {
	case l == nil:
		return ErrNotRunning
	case l.announcer == nil:
		return ErrNotAnnouncing
	}
	return l.announcer.Provide(ctx, paths...)
}

// Narinfos gives the answers of peers for a store path as they come, each peer
// once, until all have answered or ctx ends. The records are unverified.
func (n *Node) Narinfos(ctx context.Context, part nix.HashPart, strangers bool) iter.Seq[*narinfo.Info] {
	return func(yield func(*narinfo.Info) bool) {
		l := n.live.Load()
		if l == nil {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		q := &query{live: l, part: part, answers: make(chan *narinfo.Info)}
		go q.run(ctx, n.strangers(strangers))
		defer func() {
			cancel()
			for range q.answers { // Until run has ended.
				continue
			}
		}()
		for info := range q.answers {
			if !yield(info) {
				return
			}
		}
	}
}

// query asks peers for one narinfo.
type query struct {
	*live
	part    nix.HashPart
	answers chan *narinfo.Info
}

// run asks the connected peers at once, then those that the DHT knows, and
// closes answers.
func (q *query) run(ctx context.Context, strangers bool) {
	defer close(q.answers)
	sources := q.finder.Sources(strangers)
	connected := make(chan struct{})
	go func() {
		defer close(connected)
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, p := range sources {
			wg.Go(func() { q.ask(ctx, p) })
		}
	}()
	defer func() { <-connected }()
	if q.router == nil || !strangers {
		return
	}
	patience := time.NewTimer(narinfoPatience)
	defer patience.Stop()
	select {
	case <-connected:
	case <-patience.C:
	case <-ctx.Done():
		return
	}
	q.search(ctx, sources)
}

// search asks the providers in the DHT, but for those asked already.
func (q *query) search(ctx context.Context, asked []peer.ID) {
	select {
	case q.searches <- struct{}{}:
		defer func() { <-q.searches }()
	case <-ctx.Done():
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxAsked)
	for info := range q.router.FindProviders(ctx, routing.MetadataKey(q.part)) {
		if slices.Contains(asked, info.ID) || len(info.Addrs) == 0 {
			continue
		}
		q.host.Peerstore().AddAddrs(info.ID, info.Addrs, addressTTL)
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			q.ask(ctx, info.ID)
		})
	}
}

// ask asks one peer and passes its answer on.
func (q *query) ask(ctx context.Context, p peer.ID) {
	asking, cancel := context.WithTimeout(ctx, narinfoTimeout)
	defer cancel()
	infos, err := q.client.Narinfos(asking, p, []nix.HashPart{q.part})
	if err != nil {
		q.log.Debug("narinfo", zap.Stringer("peer", p), zap.Error(err))
		return
	}
	if len(infos) != 1 || infos[0] == nil {
		return
	}
	q.finder.Helped(p)
	select {
	case q.answers <- infos[0]:
	case <-ctx.Done():
	}
}
