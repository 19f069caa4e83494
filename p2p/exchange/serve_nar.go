package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// sessionMemory is what a session takes at most, in bytes: an outbox of one
// write and one chunk, and two chunks to compress.
const sessionMemory = writeSize + 3*chunk.MaxLength

// maxWait is how much of the wait for a run counts at most as the line's
// slowness: a client may have reasons of its own.
const maxWait = time.Second

// shownNAR is the server's side of one session. Requests are answered one
// after the other; those that wait do so in the stream's receive window, which
// bounds them.
type shownNAR struct {
	*Server
	*call

	hash nix.NARHash
	// zstd says that the client accepts it, which is made use of where line is
	// slow and chunks yield.
	zstd  bool
	line  *line
	yield yield
	// waited is for how long the run being answered was waited for.
	waited time.Duration
	// nar is nil until the first run: a manifest may need no look at the files.
	nar narstore.NAR
}

// serveNAR serves one session.
func (s *Server) serveNAR(ctx context.Context, c *call) error {
	if err := c.stream.Scope().ReserveMemory(sessionMemory, network.ReservationPriorityMedium); err != nil {
		return &noRoomError{reason: refusedMemory}
	}
	defer c.stream.Scope().ReleaseMemory(sessionMemory)
	tag := "nar-p2p/serve/" + c.stream.ID()
	s.host.ConnManager().Protect(c.peer, tag)
	defer s.host.ConnManager().Unprotect(c.peer, tag)
	n := &shownNAR{Server: s, call: c, line: s.lineTo(c.stream.Conn())}
	defer n.close()
	err := n.serve(ctx)
	if errors.Is(err, io.EOF) || errors.Is(err, errDraining) {
		return nil // all that was asked is answered
	}
	return err
}

// lineTo returns the line to a peer. One on the local network is fast until it
// turns out not to be, any other is slow.
func (s *Server) lineTo(conn network.Conn) *line {
	l := newLine(!manet.IsPrivateAddr(conn.RemoteMultiaddr()))
	if before, ok, _ := s.lines.PeekOrAdd(conn.RemotePeer(), l); ok {
		return before
	}
	return l
}

// serve answers requests until the client ends the stream. A request that is
// refused ends the session without an error.
func (n *shownNAR) serve(ctx context.Context) error {
	timeout := n.cfg.RequestTimeout
	for first := true; ; first = false {
		var req wirepb.NARRequest
		before := time.Now()
		if err := n.awaitRequest(n.call, &req, maxNARRequest, timeout); err != nil {
			return err
		}
		timeout = n.cfg.IdleTimeout
		open, isOpen := req.GetRequest().(*wirepb.NARRequest_Open)
		if isOpen != first {
			return fmt.Errorf("%w: the first request, and only that, is open", ErrProtocol)
		}
		var more bool
		var err error
		switch r := req.GetRequest().(type) {
		case *wirepb.NARRequest_Open:
			more, err = n.open(open.Open)
		case *wirepb.NARRequest_GetManifest:
			more, err = n.manifest(ctx)
		case *wirepb.NARRequest_Run:
			if n.nar != nil { // the client had runs to ask for before
				n.waited = min(time.Since(before), maxWait)
			}
			more, err = n.run(ctx, r.Run)
		default:
			return fmt.Errorf("%w: unknown request", ErrProtocol)
		}
		if err != nil || !more {
			return err
		}
	}
}

// refuse ends the session with a word.
func (n *shownNAR) refuse(status wirepb.Status, retryAfterMS uint32) (more bool, err error) {
	return false, n.out.send(refuse(status, retryAfterMS))
}

func (n *shownNAR) open(m *wirepb.Open) (more bool, err error) {
	if n.hash, err = oneFromWire[nix.NARHash](m.GetNarHash()); err != nil {
		return false, fmt.Errorf("open: NAR hash: %w", err)
	}
	if len(m.GetEncodings()) > maxEncodings {
		return false, fmt.Errorf("%w: %d encodings", ErrProtocol, len(m.GetEncodings()))
	}
	n.zstd = slices.Contains(m.GetEncodings(), wirepb.Encoding_ENCODING_ZSTD)
	if err := n.charge(n.holder, workOfSession); err != nil {
		return false, err
	}
	n.counters.sessions.Add(1)
	root, rootKnown, held := n.shelf.Held(n.hash)
	if !held {
		return n.refuse(wirepb.Status_STATUS_NOT_HELD, 0)
	}
	return true, n.out.send(&wirepb.NARResponse{Response: &wirepb.NARResponse_Opened{
		Opened: &wirepb.Opened{ManifestRoot: rootToWire(root, rootKnown)},
	}})
}

// manifest sends the manifest while it is computed.
func (n *shownNAR) manifest(ctx context.Context) (more bool, err error) {
	if err := n.charge(n.holder, n.workOfManifest(n.hash)); err != nil {
		return false, err
	}
	p := pieces{out: n.out}
	root, err := n.shelf.Manifest(ctx, n.hash, p.add)
	if busy, ok := errors.AsType[*narstore.BusyError](err); ok {
		return false, &noRoomError{reason: refusedManifest, retryAfter: busy.RetryAfter}
	}
	end := &wirepb.ManifestEnd{Outcome: wirepb.ManifestEnd_OUTCOME_CONFIRMED, ManifestRoot: root[:]}
	switch {
	case errors.Is(err, chunk.ErrCorrupt):
		end = &wirepb.ManifestEnd{Outcome: wirepb.ManifestEnd_OUTCOME_CORRUPT}
	case errors.Is(err, narstore.ErrNotFound), errors.Is(err, narstore.ErrChanged):
		return n.refuse(wirepb.Status_STATUS_NOT_HELD, 0)
	case err != nil:
		return false, fmt.Errorf("manifest: %w", err)
	default:
		if err := p.flush(); err != nil {
			return false, err
		}
	}
	return end.GetOutcome() == wirepb.ManifestEnd_OUTCOME_CONFIRMED, n.out.send(&wirepb.NARResponse{
		Response: &wirepb.NARResponse_ManifestEnd{ManifestEnd: end},
	})
}

// pieces cuts a manifest's encoding into messages.
type pieces struct {
	out *outbox
	buf []byte
}

func (p *pieces) add(b []byte) error {
	for len(b) > 0 {
		size := min(len(b), maxPiece-len(p.buf))
		p.buf = append(p.buf, b[:size]...)
		b = b[size:]
		if len(p.buf) == maxPiece {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	if len(p.buf) < minPiece {
		return nil
	}
	return p.flush()
}

func (p *pieces) flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	err := p.out.send(&wirepb.NARResponse{Response: &wirepb.NARResponse_ManifestPiece{
		ManifestPiece: &wirepb.ManifestPiece{Data: p.buf},
	}})
	p.buf = p.buf[:0]
	return err
}

func (n *shownNAR) close() {
	if n.nar != nil {
		if err := n.nar.Close(); err != nil {
			n.log.Warn("NAR not closed", zap.Stringer("narHash", n.hash), zap.Error(err))
		}
	}
}
