package locate

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

const (
	// maxSources bounds the peers asked in one round: an office, where in profile
	// lan nobody else could tell.
	maxSources = 64
	// maxAsking bounds the requests under way with one peer: a peer that does
	// not answer is left out of the following rounds.
	maxAsking = 2
	// askTimeout bounds one request. askPatience is how long a round waits
	// before it goes on without those that have not answered; their answers
	// still count.
	askTimeout  = 4 * time.Second
	askPatience = 500 * time.Millisecond
	// maxRecent bounds the peers that are asked because they held something
	// lately, within recentTTL.
	maxRecent = 8
	recentTTL = positiveTTL
)

// recent is a peer that held something that was asked for.
type recent struct {
	peer peer.ID
	at   time.Time
}

// round asks the sources about an entry and all others that wait.
func (f *Finder) round(ctx context.Context, first *entry) {
	// By whether strangers may be asked.
	batches := map[bool][]*entry{first.key.strangers: {first}}
	for n := 1; n < exchange.MaxHashes; n++ {
		select {
		case e := <-f.asks:
			batches[e.key.strangers] = append(batches[e.key.strangers], e)
			continue
		default:
		}
		break
	}
	var wg sync.WaitGroup
	for strangers, batch := range batches {
		wg.Go(func() { f.askAll(ctx, f.Sources(strangers), batch) })
	}
	wg.Wait()
}

// Sources returns the peers to ask first about anything.
func (f *Finder) Sources(strangers bool) []peer.ID {
	sources := f.cfg.Neighbours(strangers)
	if strangers {
		f.mu.Lock()
		for _, r := range f.recent {
			if time.Since(r.at) < recentTTL && !slices.Contains(sources, r.peer) {
				sources = append(sources, r.peer)
			}
		}
		f.mu.Unlock()
	}
	return sources[:min(len(sources), maxSources)]
}

// askAll asks every source about the whole batch and moves its entries on.
func (f *Finder) askAll(ctx context.Context, sources []peer.ID, batch []*entry) {
	f.mu.Lock()
	for _, e := range batch {
		e.epoch = f.epoch
	}
	f.mu.Unlock()
	patience, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var late sync.WaitGroup
	answered := make(chan struct{})
	for _, p := range sources {
		late.Go(func() { f.ask(ctx, p, batch) })
	}
	go func() {
		late.Wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-patience.Done():
	}
	f.settle(batch)
	// The round holds its worker until the last has answered, which bounds
	// what is under way.
	<-answered
}

// ask asks one peer about a batch.
func (f *Finder) ask(ctx context.Context, p peer.ID, batch []*entry) {
	if !f.begin(p) {
		return
	}
	defer f.end(p)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	hashes := make([]nix.NARHash, len(batch))
	for i, e := range batch {
		hashes[i] = e.key.hash
	}
	holdings, err := f.cfg.Client.Have(ctx, p, hashes)
	if err != nil {
		f.log.Debug("have", zap.Stringer("peer", p), zap.Error(err))
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	helped := false
	for i, e := range batch {
		if i < len(holdings) && holdings[i].Held {
			f.hold(e, p, true)
			helped = true
		} else {
			f.refuse(e, p)
		}
	}
	if helped {
		f.remember(p)
	}
}

// Helped takes note of a peer that had something that was asked for.
func (f *Finder) Helped(p peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remember(p)
}

// remember makes a peer the first of the recent ones; mu is held.
func (f *Finder) remember(p peer.ID) {
	f.recent = slices.DeleteFunc(f.recent, func(r recent) bool { return r.peer == p })
	f.recent = slices.Insert(f.recent, 0, recent{p, time.Now()})
	f.recent = f.recent[:min(len(f.recent), maxRecent)]
}

// begin counts a request to a peer, unless it has too many.
func (f *Finder) begin(p peer.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asking[p] == maxAsking {
		return false
	}
	f.asking[p]++
	return true
}

func (f *Finder) end(p peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asking[p]--; f.asking[p] == 0 {
		delete(f.asking, p)
	}
}

// settle ends the asking of a batch: what no source holds is searched for.
func (f *Finder) settle(batch []*entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range batch {
		switch {
		case e.step != asking:
		case len(e.holders) > 0 && (!e.deep || !f.searchable(e)):
			f.advance(e, asked)
		default:
			f.enqueue(e)
		}
	}
}

// introduce asks a peer just found about everything that is looked for.
func (f *Finder) introduce(ctx context.Context, p peer.ID) {
	allowed := slices.Contains(f.cfg.Neighbours(false), p)
	f.mu.Lock()
	batch := make([]*entry, 0, min(len(f.open), exchange.MaxHashes))
	for e := range f.open {
		if len(batch) == exchange.MaxHashes {
			break
		}
		if (e.key.strangers || allowed) && !e.answered(p) {
			batch = append(batch, e)
		}
	}
	f.mu.Unlock()
	if len(batch) > 0 {
		f.ask(ctx, p, batch)
	}
}
