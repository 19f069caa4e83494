package substituter

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/plan"
)

const (
	// maxReports is how many fetches are remembered in memory, those of the last
	// NARs; about 1 KB each.
	maxReports = 512
	// keepReports is how long the last fetch of each NAR is kept on the disk.
	keepReports = 7 * 24 * time.Hour
	// maxAttempts and maxParts bound what is remembered of one source.
	maxAttempts = 8
	maxParts    = 32
	// maxProblem bounds the text of an error, in bytes.
	maxProblem = 300
)

// reports remembers how NARs were fetched: of each NAR the last fetch.
type reports struct {
	bucket Bucket // nil: a restart forgets them
	events *events.Hub
	log    *zap.Logger

	mu  sync.Mutex
	lru *simplelru.LRU[nix.NARHash, *report]
	// running are those under way, and begun counts all since the start.
	running map[*report]struct{}
	begun   uint64
}

func newReports(bucket Bucket, hub *events.Hub, log *zap.Logger) *reports {
	lru, err := simplelru.NewLRU[nix.NARHash, *report](maxReports, nil)
	if err != nil {
		panic("substituter: " + err.Error()) // the size is a positive constant
	}
	return &reports{bucket: bucket, events: hub, log: log, lru: lru, running: make(map[*report]struct{})}
}

// begin begins the report of a fetch.
func (r *reports) begin(ctx context.Context, rec *record, offset int64) *report {
	now := time.Now()
	p := &report{begun: now, trace: tracing.ID(ctx), fetch: explain.Fetch{
		StorePath: rec.info.StorePath.String(), NARHash: rec.info.NARHash.String(), NARSize: rec.info.NARSize,
		Offset: offset, Started: now, Result: explain.Running,
	}}
	r.mu.Lock()
	r.begun++
	p.id = r.begun
	r.lru.Add(rec.info.NARHash, p)
	r.running[p] = struct{}{}
	r.mu.Unlock()
	r.publish(p.snapshot())
	return p
}

func (r *reports) publish(fetch *explain.Fetch) {
	r.events.Publish(events.Event{Kind: events.KindFetch, Fetch: fetch})
}

// flights returns the fetches under way, the oldest first.
func (r *reports) flights() []explain.Flight {
	r.mu.Lock()
	running := slices.Collect(maps.Keys(r.running))
	r.mu.Unlock()
	slices.SortFunc(running, func(a, b *report) int { return cmp.Compare(a.id, b.id) })
	flights := make([]explain.Flight, len(running))
	for i, p := range running {
		flights[i] = p.flight()
	}
	return flights
}

// end completes a report, keeps it and logs it.
func (r *reports) end(hash nix.NARHash, p *report, result explain.Result, err error) {
	p.end(result, err)
	r.mu.Lock()
	delete(r.running, p)
	r.mu.Unlock()
	fetch := p.snapshot()
	r.publish(fetch)
	r.log.Debug("nar fetched", zap.String("storePath", fetch.StorePath), zap.String("result", string(result)),
		zap.Float64("seconds", fetch.Seconds), zap.String("order", fetch.Order), zap.Any("sources", fetch.Sources), p.trace, zap.Error(err))
	if r.bucket == nil {
		return
	}
	data, err := json.Marshal(fetch)
	if err == nil {
		err = r.bucket.Put(hash[:], data, keepReports)
	}
	if err != nil {
		r.log.Debug("report of a fetch not kept", zap.String("storePath", fetch.StorePath), zap.Error(err))
	}
}

// last returns the last fetch of a NAR, or nil.
func (r *reports) last(hash nix.NARHash) *explain.Fetch {
	r.mu.Lock()
	p, ok := r.lru.Peek(hash)
	r.mu.Unlock()
	if ok {
		return p.snapshot()
	}
	if r.bucket == nil {
		return nil
	}
	data, err := r.bucket.Get(hash[:])
	if err != nil {
		return nil // there is none
	}
	fetch := &explain.Fetch{}
	if err := json.Unmarshal(data, fetch); err != nil {
		r.log.Debug("kept report of a fetch is of no use", zap.Stringer("narHash", hash), zap.Error(err))
		return nil
	}
	return fetch
}

// report is written while the NAR is fetched.
type report struct {
	begun time.Time
	trace zap.Field // its ID, for the log
	id    uint64

	mu    sync.Mutex
	fetch explain.Fetch
	cells cells
}

// snapshot returns the report as it stands.
func (p *report) snapshot() *explain.Fetch {
	p.mu.Lock()
	defer p.mu.Unlock()
	fetch := p.fetch
	if fetch.Result == explain.Running {
		fetch.Seconds = p.since()
	}
	fetch.Sources = slices.Clone(fetch.Sources)
	for i := range fetch.Sources {
		fetch.Sources[i].Attempts = slices.Clone(fetch.Sources[i].Attempts)
		fetch.Sources[i].Peers = slices.Clone(fetch.Sources[i].Peers)
		if r := fetch.Sources[i].Reused; r != nil {
			fetch.Sources[i].Reused = new(*r)
		}
	}
	return &fetch
}

// since is the time since the start, in seconds, to the millisecond.
func (p *report) since() float64 { return time.Since(p.begun).Round(time.Millisecond).Seconds() }

func (p *report) end(result explain.Result, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetch.Result, p.fetch.Seconds, p.fetch.Error = result, p.since(), problem(err)
}

// problem is the text of an error, of bounded length.
func problem(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if len(text) > maxProblem {
		text = text[:maxProblem] + "..."
	}
	return text
}

// plan notes in which order sources are to start from an offset on, and why.
func (p *report) plan(f *fetchPlan, offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cells = newCells(p.fetch.NARSize, offset)
	p.fetch.Order = orders[f.Reason]
	p.fetch.Excluded = nil
	for _, name := range f.excluded.kinds.strings() {
		p.fetch.Excluded = append(p.fetch.Excluded, explain.Kind(name))
	}
	size := p.fetch.NARSize - p.fetch.Offset
	for _, e := range f.entries {
		s := p.source(e)
		s.AfterSeconds, s.Expected = e.after.Seconds(), e.told(size)
	}
}

// told is how the fetch of so many bytes would begin, for people.
func (f *fetchPlan) told(bytes int64) *explain.Plan {
	told := &explain.Plan{Order: orders[f.Reason], Sources: []explain.Planned{}}
	for _, e := range f.entries {
		told.Sources = append(told.Sources, explain.Planned{
			Kind: explain.Kind(e.kind().String()), Name: e.name, AfterSeconds: e.after.Seconds(), Expected: e.told(bytes),
		})
	}
	return told
}

// told is what is expected of a source, for people; nil where nothing is.
func (e *entry) told(bytes int64) *explain.Expected {
	if e.expected == (plan.Expectation{}) && e.local == 0 {
		return nil
	}
	total, _ := e.expected.Total(bytes)
	return &explain.Expected{
		Local:            math.Round(e.local*100) / 100,
		FirstByteSeconds: seconds(e.expected.FirstByte), BytesPerSecond: math.Round(e.expected.Rate), Seconds: seconds(total),
	}
}

// orders are the reasons for the order of the sources, for people.
var orders = map[plan.Reason]string{
	plan.NoPeers:        explain.NoPeers,
	plan.HolderKnown:    explain.HolderKnown,
	plan.UpstreamsDown:  explain.UpstreamsDown,
	plan.NoHolderKnown:  explain.NoHolderKnown,
	plan.UpstreamFaster: explain.UpstreamFaster,
	plan.PeersLied:      explain.PeersLied,
	plan.NotWorthSearch: explain.NotWorthSearch,
}

// source returns what is noted of a source; p.mu is held.
func (p *report) source(e *entry) *explain.Source {
	k := explain.Kind(e.kind().String())
	for i := range p.fetch.Sources {
		if s := &p.fetch.Sources[i]; s.Kind == k && s.Name == e.name {
			return s
		}
	}
	p.fetch.Sources = append(p.fetch.Sources, explain.Source{Kind: k, Name: e.name, Attempts: []explain.Attempt{}})
	return &p.fetch.Sources[len(p.fetch.Sources)-1]
}

// attempt returns a source's attempt that is under way, or nil; p.mu is held.
func (p *report) attempt(e *entry) *explain.Attempt {
	attempts := p.source(e).Attempts
	if n := len(attempts); n > 0 && attempts[n-1].End == explain.UnderWay {
		return &attempts[n-1]
	}
	return nil
}

// start notes that a source starts, and why.
func (p *report) start(e *entry, why explain.Joining) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.source(e)
	if len(s.Attempts) == maxAttempts {
		s.Attempts = slices.Delete(s.Attempts, 0, 1)
	}
	s.Attempts = append(s.Attempts, explain.Attempt{Start: p.since(), Why: why, End: explain.UnderWay})
}

// began notes that the first bytes of a source have been of use.
func (p *report) began(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.attempt(e); a != nil {
		a.FirstByte = p.since()
	}
}

// wasted notes bytes of a source that came in vain.
func (p *report) wasted(e *entry, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.source(e).Wasted += int64(n)
}

// held notes for how long a source was held up by the limit for downloads.
func (p *report) held(e *entry, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.source(e).HeldSeconds += seconds(d)
}

// got notes bytes of a source that were of use, in their order.
func (p *report) got(e *entry, parts []Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, a := p.source(e), p.attempt(e)
	for _, part := range parts {
		s.Bytes += part.Bytes
		if a != nil {
			a.Bytes += part.Bytes
		}
		p.cells.add(giverOf(e, part), part.Bytes)
	}
}

// reused notes bytes of a source that came out of the local store.
func (p *report) reused(e *entry, bySum, byMaskedSum int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.source(e)
	if s.Reused == nil {
		s.Reused = &explain.Reused{}
	}
	s.Reused.BySum += bySum
	s.Reused.ByMaskedSum += byMaskedSum
}

// stop notes how an attempt ended, unless that is noted already.
func (p *report) stop(e *entry, end explain.End, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.attempt(e); a != nil {
		a.Stop, a.End, a.Error = p.since(), end, problem(err)
	}
}

// parts notes which peers bytes came from.
func (p *report) parts(e *entry, sources []Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.source(e)
	for _, source := range sources {
		i := slices.IndexFunc(s.Peers, func(part explain.Part) bool { return part.Peer == source.Peer })
		switch {
		case i >= 0:
			s.Peers[i].Bytes += source.Bytes
		case len(s.Peers) < maxParts:
			s.Peers = append(s.Peers, explain.Part(source))
		}
	}
}

// wrong notes that the bytes of all sources that gave any were together not
// what was signed.
func (p *report) wrong() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.fetch.Sources {
		for j := range p.fetch.Sources[i].Attempts {
			if a := &p.fetch.Sources[i].Attempts[j]; a.Bytes > 0 {
				a.End = explain.Wrong
			}
		}
	}
}
