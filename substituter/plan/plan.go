// Package plan decides where the bytes of a NAR come from, by expected time.
//
// Before a fetch, Decide says who starts and when the others join. While
// several sources run, Contest says who has fallen behind for good. Both are
// functions of numbers alone, so that every case can be tested and told to
// people; docs/fetching.md has the formula and the reasons.
package plan

import (
	"math"
	"time"
)

const (
	// hedgeMin and hedgeMax bound the time without verified progress after which
	// the next source joins. Less is the jitter of a line that works, and more
	// would be noticed.
	hedgeMin = 150 * time.Millisecond
	hedgeMax = 2 * time.Second
	// hedgeDefault is for sources of which it is not known how long they take.
	hedgeDefault = 500 * time.Millisecond
	// hedgeMidway is the least such time once bytes have come: a lost packet
	// costs 200 ms, and whoever joins may have to begin at the first byte.
	hedgeMidway = 500 * time.Millisecond
	// searchAfter is the least time until peers are searched for because the
	// upstream is silent: a search takes about as long.
	searchAfter = time.Second
	// worthSearch is the time that an upstream must be expected to take so that
	// a search for peers, which takes about a second, can be of use.
	worthSearch = 500 * time.Millisecond
	// smallNAR is a size in bytes up to which the time of the first byte is taken
	// for that of the last where the rate is not known.
	smallNAR = 256 << 10
	// lanRate, in bytes a second, is the least that is expected of a neighbour, and
	// lanFirstByte what is expected of one of whom nothing is known: a line of
	// 1 Gbit/s. That it brought less of late may be due to many NARs at once, or to
	// who reads; and if it is slow, it soon shows, and the upstream joins.
	lanRate      = 100e6
	lanFirstByte = 20 * time.Millisecond
	// localRate, in bytes a second, is how fast what lies in the local store comes
	// from there: it is read and hashed.
	localRate = 250e6
)

// What another source must be better by: estimates are not exact, and who was
// wrong has paid for two transfers.
const (
	// clearly is a factor, and plainly a time, for who starts.
	clearly = 1.25
	plainly = 50 * time.Millisecond
	// joinShare and joinGain are for who joins what is under way: the part of
	// the time left that it must not exceed, and what must be saved at least.
	joinShare = 0.7
	joinGain  = 250 * time.Millisecond
)

// Expectation is what is expected of a source.
type Expectation struct {
	// FirstByte is the time to the first verified byte, 0 if it is not known.
	FirstByte time.Duration
	// Rate is in bytes a second, 0 if it is not known.
	Rate float64
}

// Total is the expected time to the last of so many bytes; ok is false where it
// is not known.
func (e Expectation) Total(bytes int64) (total time.Duration, ok bool) {
	switch {
	case e.Rate > 0:
		return e.FirstByte + Span(float64(bytes)/e.Rate), true
	case e.FirstByte > 0 && bytes <= smallNAR:
		return e.FirstByte, true
	}
	return 0, false
}

// cost weighs both: the first byte lets Nix begin, and the last lets it end.
func (e Expectation) cost(bytes int64) (cost time.Duration, ok bool) {
	total, ok := e.Total(bytes)
	return e.FirstByte + total, ok
}

// hedge is how long a source may be without progress until the next joins.
func (e Expectation) hedge() time.Duration {
	if e.FirstByte == 0 {
		return hedgeDefault
	}
	return min(max(e.FirstByte, hedgeMin), hedgeMax)
}

// Span is a time in seconds that may be anything.
func Span(seconds float64) time.Duration {
	if !(seconds >= 0) {
		return 0
	}
	return time.Duration(min(seconds, (24*time.Hour).Seconds()) * float64(time.Second))
}

// Peers is what is known of the peers that may hold a NAR.
type Peers struct {
	// Providers is how many are known to hold it.
	Providers int
	// LAN is true if one of them is a neighbour.
	LAN bool
	// Lied is true if wrong bytes have come from some.
	Lied bool
	// Local is the share of the NAR, from 0 to 1, that is expected to lie in the
	// local store already, so that they need not send it.
	Local float64
	Expectation
}

// Expected fills in what is taken for granted of neighbours, and what is gained
// by what they need not send.
func (p Peers) Expected() Expectation {
	e := p.Expectation
	if p.Providers > 0 && p.LAN {
		e.Rate = max(e.Rate, lanRate)
		if e.FirstByte == 0 {
			e.FirstByte = lanFirstByte
		}
	}
	if p.Local > 0 && e.Rate > 0 {
		e.Rate = 1 / ((1-p.Local)/e.Rate + p.Local/max(e.Rate, localRate))
	}
	return e
}

// Upstream is what is known of the upstream that is asked first.
type Upstream struct {
	// Works is false if it is left alone for having failed.
	Works bool
	Expectation
}

// Reason is why sources start in the order in which they do.
type Reason string

// The reasons. Their texts are for metrics; package explain has those for
// people.
const (
	NoPeers        Reason = "no-peers"
	HolderKnown    Reason = "holder-known"
	UpstreamsDown  Reason = "upstreams-down"
	NoHolderKnown  Reason = "no-holder-known"
	UpstreamFaster Reason = "upstream-faster"
	PeersLied      Reason = "peers-lied"
	NotWorthSearch Reason = "not-worth-search"
)

// Decision is who starts, and when the others join.
type Decision struct {
	Reason Reason
	// PeersFirst is true if peers start before the upstreams.
	PeersFirst bool
	// PeersAfter and UpstreamAfter are the times without verified progress after
	// which peers, and the next upstream, join those before them.
	PeersAfter, UpstreamAfter time.Duration
	// Search is false if peers are not to be searched for while the upstream
	// delivers.
	Search bool
}

// Decide decides for a NAR, or the rest of one, of so many bytes. Peers may be
// nil where there are none, or none that may be asked.
func Decide(bytes int64, peers *Peers, upstream Upstream) Decision {
	d := Decision{Search: true, UpstreamAfter: upstream.hedge(), PeersAfter: max(upstream.hedge(), searchAfter)}
	switch {
	case peers == nil:
		d.Reason = NoPeers
		d.Search = false
	case peers.Lied && upstream.Works:
		d.Reason, d.Search, d.PeersAfter = PeersLied, false, hedgeMax
	case peers.Providers > 0 && upstream.Works && slower(bytes, peers.Expected(), upstream.Expectation):
		d.Reason = UpstreamFaster
		d.PeersAfter = upstream.hedge()
	case peers.Providers > 0:
		d.Reason, d.PeersFirst = HolderKnown, true
		d.UpstreamAfter = peers.Expected().hedge()
	case !upstream.Works:
		d.Reason, d.PeersFirst = UpstreamsDown, true
	default:
		d.Reason = NoHolderKnown
		if total, ok := upstream.Total(bytes); ok && total < worthSearch {
			d.Reason, d.Search, d.PeersAfter = NotWorthSearch, false, hedgeMax
		}
	}
	return d
}

// slower reports whether a is expected to be clearly slower than b.
func slower(bytes int64, a, b Expectation) bool {
	ofA, known := a.cost(bytes)
	ofB, also := b.cost(bytes)
	return known && also && ofA > time.Duration(clearly*float64(ofB))+plainly
}

// Midway is how long those that run may go without progress until the next
// joins, where it was after at the beginning.
func Midway(after time.Duration) time.Duration { return max(2*after, hedgeMidway) }

// Joins reports whether a source that does not run yet is expected to be done
// so much earlier than the one that runs, of which there are bytes left, that
// it is worth its while.
func Joins(bytes int64, one, runs Expectation) bool {
	if runs.Rate <= 0 {
		return false
	}
	left := Span(float64(bytes) / runs.Rate)
	total, ok := one.Total(bytes)
	return ok && one.Rate > 0 && float64(total) < joinShare*float64(left) && left-total >= joinGain
}

const (
	// patience is how long a source may be silent while another one delivers, and
	// the least time that it gets for its first byte.
	patience = time.Second
	// sampleBytes and sampleTime are what is needed of a source to judge it:
	// either, since its first byte.
	sampleBytes = 1 << 20
	sampleTime  = 500 * time.Millisecond
)

// Runner is how a source that runs is doing.
type Runner struct {
	// Expectation is what was expected; its rate gives way to what is measured.
	Expectation
	// Next is the offset of the first byte that it has not delivered.
	Next int64
	// Running is how long it has run.
	Running time.Duration
	// Bytes have come of late in the time Waited for them. It is what a source
	// can do and not what is taken from it.
	Bytes  int64
	Waited time.Duration
	// Delivering is how long ago its first byte came, and Silent how long it has
	// been waited for now.
	Delivering, Silent time.Duration
}

// Delivers reports whether its first byte has come.
func (r Runner) Delivers() bool { return r.Bytes > 0 }

// Sampled reports whether enough has come to judge it.
func (r Runner) Sampled() bool {
	return r.Delivers() && (r.Bytes >= sampleBytes || r.Delivering >= sampleTime)
}

// Pace is its rate in bytes a second: what is measured if there is enough of
// it, else what was expected.
func (r Runner) Pace() float64 {
	if r.Sampled() || r.Rate == 0 && r.Delivers() {
		return float64(r.Bytes) / max((r.Waited+r.Silent).Seconds(), 1e-6)
	}
	return r.Rate
}

// left is its expected time to the end of a NAR of this size, in seconds.
func (r Runner) left(size int64) float64 {
	pace := r.Pace()
	if pace <= 0 {
		return math.Inf(1)
	}
	left := float64(size-r.Next) / pace
	if !r.Delivers() {
		left += max(r.FirstByte-r.Running, 0).Seconds()
	}
	return left
}

// Lost reports whether a source has fallen behind the leader for good, with
// both running at once. A leader that falls behind is one no more, and may lose
// to whoever came in its place.
func Lost(size int64, r, leader Runner) bool {
	switch {
	case !leader.Delivers(), leader.Silent > hedgeMin && r.Silent < leader.Silent:
		return false
	case r.Delivers() && r.Silent > patience, !r.Delivers() && r.Running > max(2*r.FirstByte, patience):
		return true
	case r.Delivers() && !r.Sampled():
		return false
	}
	mine, theirs := r.left(size), leader.left(size)
	return mine >= theirs && !math.IsInf(mine, 1)
}
