package substituter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

const (
	// holdBack is the end of what a client asked for that it gets only when
	// the whole NAR has matched, in bytes.
	holdBack = 64 << 10
	// banTime is how long a NAR whose bytes proved wrong is taken from other
	// sources only.
	banTime = time.Hour
	// maxLies is how often peers may give wrong bytes for a NAR before none of them
	// is asked for it any more: others may be honest, and the swarm does not ask a
	// liar again.
	maxLies = 4
	// maxRounds is how often a NAR that proved wrong is fetched again from whom
	// was not to blame.
	maxRounds = maxLies
	// lieTime is how long after its begin a fetch turns to peers again that have lied,
	// and begins anew: Nix gives up after 300 s without a byte.
	lieTime = 2 * time.Minute
)

var errTainted = errors.New("the client may hold wrong bytes, behind which it must not go on")

// ban is what follows from bytes that proved wrong.
type ban struct {
	// excluded sources are not asked for this NAR.
	excluded blame
	// lies is how often peers gave wrong bytes.
	lies int
	// tainted is true if a client may hold a wrong prefix: then it must not
	// resume behind it.
	tainted bool
}

// distrust remembers who gave wrong bytes. Peers are left out where a client may have
// got some of those, and else after maxLies.
func (s *Server) distrust(target verify.Target, culprits blame, tainted bool) {
	b, _ := s.bans.get(target.Hash)
	b.tainted = b.tainted || tainted
	exclude := culprits
	if culprits.has(fromPeers, "") {
		if b.lies++; b.lies < maxLies && !b.tainted {
			exclude.kinds = exclude.kinds.without(fromPeers)
		}
	}
	b.excluded = b.excluded.with(exclude)
	s.bans.put(target.Hash, b, banTime)
	s.states.Drop(target)
	// An upstream or the store that is damaged is for somebody to repair.
	log := s.log.Warn
	if !culprits.has(fromPeers, "") {
		log = s.log.Error
	}
	log("nar does not match its signed hash", zap.Stringer("narHash", target.Hash), zap.Strings("sources", culprits.strings()))
}

// serveNAR serves a NAR that a trusted record names. For any other it says 404
// at once, and nobody is asked about it.
func (s *Server) serveNAR(w http.ResponseWriter, r *http.Request, part nix.HashPart, hash nix.NARHash) {
	ctx, span := s.traced(r, "nar")
	defer span.End(nil)
	rec, err := s.naming(ctx, part, hash)
	if err != nil {
		s.counters.nars.add(resultAbsent)
		came(span, resultAbsent, http.StatusNotFound)
		s.asked("nar", part, nil, resultAbsent)
		notFound(w)
		return
	}
	resp := newResponse(w, hash, rec.info.NARSize)
	if r.Method == http.MethodHead { // for which ranges are not defined
		resp.header(http.StatusOK)
		return
	}
	// A date never equals the tag: then the client gets the whole.
	if ifRange := r.Header.Get("If-Range"); ifRange == "" || ifRange == resp.etag {
		if header := r.Header.Get("Range"); header != "" {
			if resp.want, resp.partial, err = parseRange(header, resp.size); err != nil {
				resp.unsatisfiable()
				return
			}
		}
	}
	result := s.deliver(ctx, rec.record, resp)
	if s.peers != nil {
		s.peers.Dismiss(hash)
	}
	s.counters.nars.add(result)
	came(span, result, resp.status)
	s.asked("nar", part, rec.record, result)
	switch {
	case result == resultServed:
	case resp.begun:
		panic(http.ErrAbortHandler) // the client must not take this for the end
	default:
		notFound(w)
	}
}

// fetch fetches the NAR, and again where what gave wrong bytes can be done
// without and the client has seen none of them.
func (s *Server) fetch(ctx context.Context, fl *flight, p *report) error {
	begun := time.Now()
	for rounds := 1; ; rounds++ {
		b, _ := s.bans.get(fl.rec.info.NARHash)
		// What a client has of a small NAR was verified before it was sent.
		if b.tainted && !fl.small && fl.want.From > 0 {
			return errTainted
		}
		err := s.fetchOnce(ctx, fl, b, p)
		if !errors.Is(err, verify.ErrMismatch) || fl.window.begun() || rounds > maxRounds || time.Since(begun) > lieTime || ctx.Err() != nil {
			return err
		}
	}
}

// fetchOnce fetches the NAR once, from the sources that are not excluded.
func (s *Server) fetchOnce(ctx context.Context, fl *flight, b ban, p *report) error {
	rec, target := fl.rec, verify.Target{Hash: fl.rec.info.NARHash, Size: fl.size}
	gate, err := s.newGate(fl, target)
	if err != nil {
		return err
	}
	_, planning := tracing.Start(ctx, "plan")
	chosen := s.plan(rec, b, gate.Digest().Offset())
	chosen.hold(fl.small)
	chosen.trace(planning)
	f := s.newFetch(chosen, gate, p)
	err = f.fetch(ctx)
	if gate.Conflict() {
		s.distrust(target, blame{kinds: kinds(0).with(fromPeers)}, true)
	}
	switch {
	case errors.Is(err, verify.ErrMismatch):
		if !fl.window.begun() {
			f.inVain()
		}
		s.distrust(target, f.culprits(), fl.window.begun() || fl.want.From > 0)
	case errors.Is(err, verify.ErrAddress):
		s.refuse(rec) // whoever gave the bytes gave what the record asked for
	}
	return err
}

// newGate returns the gate through which a flight gets its NAR. A NAR that is
// not small goes on where the flight does, unless its content address is to
// be checked: that has no states to go on with, and what lies before is read
// again.
func (s *Server) newGate(fl *flight, target verify.Target) (*verify.Gate, error) {
	address, err := s.proof(fl.rec)
	if err != nil {
		return nil, err
	}
	hold := fl.size
	digest := verify.NewDigest(target)
	if !fl.small {
		hold = holdBack
		if address == nil {
			digest = s.states.Resume(target, fl.want.From)
		}
	}
	gate := verify.NewGate(fl.window, digest, fl.want, hold)
	if address != nil {
		gate.Check(address)
	}
	if !fl.small {
		gate.Keep(s.states)
	}
	return gate, nil
}

// response writes a NAR, or a range of it. Its header goes out with the first
// bytes, so that until then it can still become a 404.
type response struct {
	w       http.ResponseWriter
	etag    string
	size    int64 // of the NAR, in bytes
	want    verify.Range
	partial bool
	status  int // what was answered, or will be where nothing was yet
	begun   bool
	sent    int64 // bytes
}

func newResponse(w http.ResponseWriter, hash nix.NARHash, size int64) *response {
	return &response{w: w, etag: `"` + hash.Base32() + `"`, size: size, status: http.StatusNotFound, want: verify.Range{From: 0, To: size}}
}

func (r *response) header(status int) {
	h := r.w.Header()
	h.Set("Content-Type", "application/x-nix-nar")
	h.Set("Accept-Ranges", "bytes")
	h.Set("ETag", r.etag)
	h.Set("Content-Length", strconv.FormatInt(r.want.To-r.want.From, 10))
	if status == http.StatusPartialContent {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", r.want.From, r.want.To-1, r.size))
	}
	r.status = status
	r.w.WriteHeader(status)
}

func (r *response) unsatisfiable() {
	r.w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", r.size))
	http.Error(r.w, "range not satisfiable", http.StatusRequestedRangeNotSatisfiable)
}

// Write sends the bytes that come next.
func (r *response) Write(p []byte) (int, error) {
	if !r.begun {
		r.begun = true
		status := http.StatusOK
		if r.partial {
			status = http.StatusPartialContent
		}
		r.header(status)
	}
	n, err := (&timedWriter{w: r.w}).Write(p)
	r.sent += int64(n)
	return n, err
}
