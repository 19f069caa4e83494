package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/moment"
)

const (
	// keepInterval is how often records that have changed are written, keepTimeout
	// how long that may take at the end.
	keepInterval = time.Minute
	keepTimeout  = 2 * time.Second
	// keepTime is how long a peer is remembered that was not met again. The line
	// of a machine at home is seldom the same for longer.
	keepTime = 30 * 24 * time.Hour
)

// Record is what is known of a peer.
type Record struct {
	Peer peer.ID `json:"-"`
	// RTT is its round trip, Rate what it brings in bytes a second, FirstByte the
	// time from the wish for a NAR to its first verified bytes: averages of the
	// last few NARs. 0 is not known.
	RTT       time.Duration `json:"rtt,omitempty"`
	Rate      float64       `json:"rate,omitempty"`
	FirstByte time.Duration `json:"firstByte,omitempty"`
	// LAN says that it was last met on the local network.
	LAN bool `json:"lan,omitempty"`
	// Honest says that a NAR matched as a whole under a manifest of the peer's,
	// and that none has failed to since.
	Honest bool `json:"honest,omitempty"`
	// Penalty is as of At, and halves every hour. From 3 on the peer is not asked.
	Penalty float64   `json:"penalty,omitempty"`
	At      time.Time `json:"at,omitzero"`
	// Success is when it last sent what was of use, Failure when a failure last
	// counted.
	Success time.Time `json:"success,omitzero"`
	Failure time.Time `json:"failure,omitzero"`
}

// met is when the peer was last heard of.
func (r *Record) met() time.Time {
	met := r.At
	for _, t := range []time.Time{r.Success, r.Failure} {
		if t.After(met) {
			met = t
		}
	}
	return met
}

// sound reports whether a record that was read can be what was written.
func (r *Record) sound(now time.Time) bool {
	for _, v := range []float64{r.Rate, r.Penalty} {
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			return false
		}
	}
	// A clock that was wrong must not keep a penalty for ever.
	return r.RTT >= 0 && r.FirstByte >= 0 && !r.met().After(now.Add(time.Hour)) && now.Sub(r.met()) < keepTime
}

// Recall takes over what was kept in store, which is for the standing alone and
// which Run keeps up to date. What cannot be read is left out.
func (s *Standing) Recall(ctx context.Context, store ds.Batching) error {
	s.store = store
	results, err := store.Query(ctx, query.Query{})
	if err != nil {
		return fmt.Errorf("swarm: standing: %w", err)
	}
	defer results.Close()
	var records []Record
	now := time.Now()
	for result := range results.Next() {
		if result.Error != nil {
			return fmt.Errorf("swarm: standing: %w", result.Error)
		}
		key := ds.RawKey(result.Key)
		var r Record
		id, err := peer.Decode(key.BaseNamespace())
		if err == nil {
			err = json.Unmarshal(result.Value, &r)
		}
		if err != nil || !r.sound(now) {
			err := store.Delete(ctx, key)
			if err != nil {
				return fmt.Errorf("swarm: standing: %w", err)
			}
			continue
		}
		r.Peer = id
		r.At, r.Success, r.Failure = moment.Recalled(r.At), moment.Recalled(r.Success), moment.Recalled(r.Failure)
		records = append(records, r)
	}
	// Who was met last is forgotten last.
	slices.SortFunc(records, func(a, b Record) int { return a.met().Compare(b.met()) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		s.peers.Add(r.Peer, r)
	}
	return nil
}

// Run writes what has changed, every minute and at the end, until ctx ends. It
// does nothing more where Recall was not called.
func (s *Standing) Run(ctx context.Context, log *zap.Logger) error {
	ticker := time.NewTicker(keepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
		keeping, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTimeout)
		if err := s.keep(keeping); err != nil {
			log.Warn("peer records not written", zap.Error(err))
		}
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// keep writes the records that have changed.
func (s *Standing) keep(ctx context.Context) error {
	if s.store == nil {
		return nil
	}
	s.mu.Lock()
	changed := make([]Record, 0, len(s.changed))
	var gone []peer.ID
	for p := range s.changed {
		if r, ok := s.peers.Peek(p); ok {
			changed = append(changed, r)
		} else {
			gone = append(gone, p)
		}
	}
	clear(s.changed)
	s.mu.Unlock()
	batch, err := s.store.Batch(ctx)
	if err != nil {
		return fmt.Errorf("swarm: standing: %w", err)
	}
	var errs []error
	for _, r := range changed {
		text, err := json.Marshal(r)
		if err == nil {
			err = batch.Put(ctx, recordKey(r.Peer), text)
		}
		errs = append(errs, err)
	}
	for _, p := range gone {
		errs = append(errs, batch.Delete(ctx, recordKey(p)))
	}
	if err := errors.Join(append(errs, batch.Commit(ctx))...); err != nil {
		return fmt.Errorf("swarm: standing: %w", err)
	}
	return nil
}

func recordKey(p peer.ID) ds.Key { return ds.NewKey(p.String()) }

// Peers returns what is known of all peers, those met last first.
func (s *Standing) Peers() []Record {
	s.mu.Lock()
	records := s.peers.Values()
	s.mu.Unlock()
	slices.SortFunc(records, func(a, b Record) int { return b.met().Compare(a.met()) })
	return records
}
