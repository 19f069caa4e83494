package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/libp2p/go-libp2p/core/network"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// sessionMemory is what a session takes at most, in bytes: an outbox of one
// write and one chunk, and two chunks to compress.
const sessionMemory = writeSize + 3*chunk.MaxLength

// shownNAR is the server's side of one session. Requests are answered one
// after the other; those that wait do so in the stream's receive window, which
// bounds them.
type shownNAR struct {
	*Server
	hash nix.NARHash
	in   *inbox
	out  *outbox
	// zstd says that the client accepts it.
	zstd bool
	// nar is nil until the first run: a manifest may need no look at the files.
	nar narstore.NAR
}

// serveNAR serves one session.
func (s *Server) serveNAR(ctx context.Context, st network.Stream, out *outbox) error {
	if err := st.Scope().ReserveMemory(sessionMemory, network.ReservationPriorityMedium); err != nil {
		return out.send(busyNAR(s.retryAfterMS()))
	}
	defer st.Scope().ReleaseMemory(sessionMemory)
	tag := "nar-p2p/serve/" + st.ID()
	s.host.ConnManager().Protect(st.Conn().RemotePeer(), tag)
	defer s.host.ConnManager().Unprotect(st.Conn().RemotePeer(), tag)
	n := &shownNAR{Server: s, in: newInbox(st, queryBuffer), out: out}
	defer n.close()
	err := n.serve(ctx)
	if errors.Is(err, io.EOF) || errors.Is(err, errDraining) {
		return nil // all that was asked is answered
	}
	return err
}

// serve answers requests until the client ends the stream. A request that is
// refused ends the session without an error.
func (n *shownNAR) serve(ctx context.Context) error {
	timeout := n.cfg.RequestTimeout
	for first := true; ; first = false {
		var req wirepb.NARRequest
		if err := n.awaitRequest(n.in, &req, maxNARRequest, timeout); err != nil {
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
	p := pieces{out: n.out}
	root, err := n.shelf.Manifest(ctx, n.hash, p.add)
	end := &wirepb.ManifestEnd{Outcome: wirepb.ManifestEnd_OUTCOME_CONFIRMED, ManifestRoot: root[:]}
	switch {
	case errors.Is(err, chunk.ErrCorrupt):
		end = &wirepb.ManifestEnd{Outcome: wirepb.ManifestEnd_OUTCOME_CORRUPT}
	case errors.Is(err, narstore.ErrNotFound):
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

// run sends chunks, straight from the files.
func (n *shownNAR) run(ctx context.Context, m *wirepb.Run) (more bool, err error) {
	run, err := spanFromWire(m)
	if err != nil {
		return false, err
	}
	// The NAR may have been withdrawn since it was opened.
	if _, _, held := n.shelf.Held(n.hash); !held {
		return n.refuse(wirepb.Status_STATUS_NOT_HELD, 0)
	}
	if n.nar == nil {
		nar, err := n.shelf.Open(ctx, n.hash)
		if err != nil {
			if !errors.Is(err, narstore.ErrNotFound) {
				n.log.Warn("NAR not opened", zap.Stringer("narHash", n.hash), zap.Error(err))
			}
			return n.refuse(wirepb.Status_STATUS_NOT_HELD, 0)
		}
		n.nar = nar
	}
	if end := run.end(); end > n.nar.Size() {
		return false, fmt.Errorf("%w: run ends at %d of %d bytes", ErrProtocol, end, n.nar.Size())
	}
	offset := run.offset
	for _, length := range run.lengths {
		before := len(n.out.buf)
		if err := n.add(offset, int(length)); err != nil {
			// The path went away or its disk is ill: another peer may have it.
			n.log.Warn("NAR not read", zap.Stringer("narHash", n.hash), zap.Int64("offset", offset), zap.Error(err))
			n.out.buf = n.out.buf[:before]
			return n.refuse(wirepb.Status_STATUS_NOT_HELD, 0)
		}
		if err := n.out.flushFull(); err != nil {
			return false, err
		}
		offset += int64(length)
	}
	return true, n.out.flush()
}

// add gathers one chunk.
func (n *shownNAR) add(offset int64, length int) error {
	if n.zstd {
		return n.addCompressed(offset, length)
	}
	n.out.buf = appendChunkHeader(n.out.buf, wirepb.Encoding_ENCODING_RAW, length)
	at := len(n.out.buf)
	n.out.buf = slices.Grow(n.out.buf, length)[:at+length]
	if err := n.read(n.out.buf[at:], offset); err != nil {
		return err
	}
	n.counters.bytes.Add(int64(length))
	return nil
}

func (n *shownNAR) addCompressed(offset int64, length int) error {
	raw, compressed := n.buffer(), n.buffer()
	defer n.buffers.Put(raw)
	defer n.buffers.Put(compressed)
	body, encoding := (*raw)[:length], wirepb.Encoding_ENCODING_RAW
	if err := n.read(body, offset); err != nil {
		return err
	}
	if c := n.encoder.EncodeAll(body, (*compressed)[:0]); worthwhile(len(c), length) {
		body, encoding = c, wirepb.Encoding_ENCODING_ZSTD
	}
	n.out.buf = append(appendChunkHeader(n.out.buf, encoding, len(body)), body...)
	n.counters.bytes.Add(int64(len(body)))
	return nil
}

// read fills b with the NAR's bytes at offset.
func (n *shownNAR) read(b []byte, offset int64) error {
	got, err := n.nar.ReadAt(b, offset)
	if got == len(b) {
		return nil // ReadAt may say io.EOF at the very end
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (n *shownNAR) buffer() *[]byte {
	b, ok := n.buffers.Get().(*[]byte)
	if !ok {
		panic("exchange: pool of buffers holds something else")
	}
	return b
}

func (n *shownNAR) close() {
	if n.nar != nil {
		if err := n.nar.Close(); err != nil {
			n.log.Warn("NAR not closed", zap.Stringer("narHash", n.hash), zap.Error(err))
		}
	}
}

func appendChunkHeader(b []byte, encoding wirepb.Encoding, length int) []byte {
	return appendMessage(b, &wirepb.NARResponse{Response: &wirepb.NARResponse_Chunk{
		Chunk: &wirepb.Chunk{Encoding: encoding, Length: uint32(length)},
	}})
}
