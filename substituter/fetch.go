package substituter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

const (
	// pieceSize is the buffer of a transfer, in bytes: smaller ones cost
	// throughput on libp2p's transports.
	pieceSize = 128 << 10
	// upstreamAfter and peersAfter are the times without verified progress
	// after which a source joins those before it. Peers that nobody has heard
	// of yet are a search in the DHT: an upstream gets more time than they.
	upstreamAfter = time.Second
	peersAfter    = 3 * time.Second
	// peerTime is for finding peers, and for spooling what they send where that
	// is needed: Nix gives up after 300 s without a byte, and needs time for
	// the next attempt.
	peerTime = 60 * time.Second
	// stallTime ends a stream that delivers nothing.
	stallTime = 10 * time.Second
	// slowBytes is what peers must bring in stallTime of waiting for them while
	// there is a source that has not had its turn.
	slowBytes = 1 << 20
	// maxTries is how often a source that breaks in the middle is opened.
	maxTries = 3
)

var errNoSource = errors.New("no source is left")

// entry is a source in the plan of a fetch.
type entry struct {
	source
	name  string // of an upstream
	after time.Duration
	tries int
	// hadItsTurn is true once it has won a race or failed; not if it was late.
	hadItsTurn bool
}

// fetch brings one NAR, from the offset of its gate's digest to its end, out
// of several sources. Wherever one ends the next goes on.
type fetch struct {
	s      *Server
	plan   []*entry
	gate   *verify.Gate
	report *report
	// inherited is true if peers supplied bytes of the digest before.
	inherited bool
	used      kinds
	mixed     []*stream // of peers, to be judged and closed at the end
}

func (s *Server) newFetch(rec *record, excluded kinds, gate *verify.Gate, p *report) *fetch {
	plan, order := s.plan(rec, excluded)
	p.plan(plan, order, excluded)
	return &fetch{s: s, plan: plan, gate: gate, report: p, inherited: gate.Digest().FromPeers()}
}

// run passes everything through the gate. The error is ErrMismatch, a
// ClientError, or says why no source is left.
func (f *fetch) run(ctx context.Context) error {
	digest := f.gate.Digest()
	defer f.close()
	for digest.Offset() < digest.Target().Size {
		st, err := f.next(ctx)
		if err != nil {
			return err
		}
		if err := f.pass(st); err != nil {
			return err
		}
	}
	f.judge(f.gate.Verified())
	err := f.gate.Finish()
	if errors.Is(err, verify.ErrMismatch) || errors.Is(err, verify.ErrAddress) {
		f.report.wrong()
	}
	return err
}

// judge tells the peers' transfers whether the whole matched. Where peers of an
// earlier request supplied the beginning, nobody knows whose fault it was.
// Where the rest is an upstream's, it is the peers'.
func (f *fetch) judge(ok bool) {
	for _, st := range f.mixed {
		if ok || !f.inherited {
			st.transfer.Verdict(ok)
		}
	}
}

// culprits are the kinds of source that are excluded after a mismatch: the
// peers if any of the bytes are theirs, else all that supplied any.
func (f *fetch) culprits() kinds {
	if f.gate.Digest().FromPeers() {
		return kinds(0).with(fromPeers)
	}
	return f.used
}

func (f *fetch) close() {
	for _, st := range f.mixed {
		f.report.parts(st.from, st.transfer.Sources())
		st.end()
	}
}

// another reports whether there is a source of which it is not known what it
// can do.
func (f *fetch) another() bool {
	return slices.ContainsFunc(f.plan, func(e *entry) bool { return !e.hadItsTurn && e.tries < maxTries })
}

// endOf is how an attempt ends by an error of the gate.
func endOf(err error) explain.End {
	if errors.Is(err, verify.ErrMismatch) {
		return explain.Wrong
	}
	return explain.Stopped // the client does not read any more
}

// pass copies a stream to the gate until either ends. Its error is the gate's;
// a source that breaks is only noted.
func (f *fetch) pass(st *stream) error {
	k := st.from.kind()
	f.used = f.used.with(k)
	st.from.hadItsTurn = true
	if k == fromPeers {
		f.gate.Digest().MarkPeers()
	}
	if st.transfer != nil {
		f.mixed = append(f.mixed, st)
		defer st.cancel()
	} else {
		f.report.parts(st.from, st.sources)
		defer st.end()
	}
	digest := f.gate.Digest()
	buffer := make([]byte, pieceSize)
	for digest.Offset() < digest.Target().Size {
		n, err := st.read(buffer[:min(pieceSize, digest.Target().Size-digest.Offset())])
		f.s.counters.bytes.count(k.String(), n)
		f.report.got(st.from, n)
		if _, err := f.gate.Write(buffer[:n]); err != nil {
			f.report.stop(st.from, endOf(err), err)
			return err
		}
		if err != nil && digest.Offset() < digest.Target().Size {
			f.report.stop(st.from, explain.BrokeOff, err)
			return nil
		}
		if k == fromPeers && st.slow() && f.another() {
			f.report.stop(st.from, explain.TooSlow, nil)
			return nil
		}
	}
	f.report.stop(st.from, explain.Complete, nil)
	return nil
}
