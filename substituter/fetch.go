package substituter

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

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
	after time.Duration
	tries int
	// hadItsTurn is true once it has won a race or failed; not if it was late.
	hadItsTurn bool
}

// fetch brings one NAR, from the offset of its gate's digest to its end, out
// of several sources. Wherever one ends the next goes on.
type fetch struct {
	s    *Server
	plan []*entry
	gate *verify.Gate
	// inherited is true if peers supplied bytes of the digest before.
	inherited bool
	used      kinds
	mixed     []*stream // of peers, to be judged and closed at the end
}

func (s *Server) newFetch(rec *record, excluded kinds, gate *verify.Gate) *fetch {
	return &fetch{s: s, plan: s.plan(rec, excluded), gate: gate, inherited: gate.Digest().FromPeers()}
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
	return f.gate.Finish()
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
		f.s.log.Debug("transfer from peers", zap.Any("sources", st.transfer.Sources()))
		st.end()
	}
}

// another reports whether there is a source of which it is not known what it
// can do.
func (f *fetch) another() bool {
	return slices.ContainsFunc(f.plan, func(e *entry) bool { return !e.hadItsTurn && e.tries < maxTries })
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
		defer st.end()
	}
	digest := f.gate.Digest()
	buffer := make([]byte, pieceSize)
	for digest.Offset() < digest.Target().Size {
		n, err := st.read(buffer[:min(pieceSize, digest.Target().Size-digest.Offset())])
		f.s.counters.bytes.count(k.String(), n)
		if _, err := f.gate.Write(buffer[:n]); err != nil {
			return err
		}
		if err != nil && digest.Offset() < digest.Target().Size {
			f.s.log.Debug("source broke off", zap.Stringer("source", k), zap.Int64("offset", digest.Offset()), zap.Error(err))
			return nil
		}
		if k == fromPeers && st.slow() && f.another() {
			f.s.log.Debug("peers are slow", zap.Int64("offset", digest.Offset()))
			return nil
		}
	}
	return nil
}
