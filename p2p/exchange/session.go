package exchange

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// sessionBuffer is how much of a session is read ahead, in bytes. Longer reads
// go straight to where the chunk belongs.
const sessionBuffer = 64 << 10

// endTimeout is how long a peer may take to end a session that was closed.
const endTimeout = 5 * time.Second

// Session is the client's side of a session on one NAR. It ends with the
// context that OpenNAR was given, with Close, or with the first error. Of its
// methods Ask may run beside one other; Close, Abort and Heard may be called at
// any time.
type Session struct {
	stream    network.Stream
	heard     *heardStream
	in        *inbox
	out       outbox
	decoder   *zstd.Decoder
	mayBeZstd bool
	stall     time.Duration

	// opened says that the server's answer to open has been read.
	opened    bool
	root      chunk.Root
	rootKnown bool

	// owed counts the chunks and manifests that were asked for and not received.
	owed atomic.Int64
	// release undoes what hold did, detach only that the stream ends with the
	// context.
	release func()
	detach  func() bool
	closing sync.Once
}

// OpenNAR begins a session on a NAR. It does not wait for the peer's consent:
// the first method that reads does, so that requests can travel with the
// opening. With compress set chunks may come compressed, which pays off where
// the line is slower than some 200 MB/s. The error is a *BusyError where too many
// sessions with the peer are under way.
func (c *Client) OpenNAR(ctx context.Context, p peer.ID, hash nix.NARHash, compress bool) (*Session, error) {
	done, err := c.takeSession(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("exchange: nar: %s: %w", p, err)
	}
	st, err := c.newDataStream(ctx, p)
	if err != nil {
		done()
		return nil, fmt.Errorf("exchange: nar: %s: %w", p, err)
	}
	heard := &heardStream{Stream: st, ears: c.ears}
	s := &Session{
		stream:    st,
		heard:     heard,
		in:        newInbox(heard, sessionBuffer),
		out:       outbox{stream: st, timeout: c.cfg.StallTimeout},
		decoder:   c.decoder,
		mayBeZstd: compress,
		stall:     c.cfg.StallTimeout,
	}
	s.release, s.detach = s.hold(ctx, c.host.ConnManager(), done)
	open := &wirepb.Open{NarHash: hash[:]}
	if compress {
		open.Encodings = []wirepb.Encoding{wirepb.Encoding_ENCODING_ZSTD}
	}
	err = s.out.send(&wirepb.NARRequest{Request: &wirepb.NARRequest_Open{Open: open}})
	if err != nil {
		// A peer without room answers and closes before it reads.
		return nil, s.failOpen(firstCause(s.awaitOpened(), err))
	}
	return s, nil
}

// takeSession waits for a turn with the peer, which done ends.
func (c *Client) takeSession(ctx context.Context, p peer.ID) (done func(), err error) {
	waiting, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	done, err = c.sessions.take(waiting, p)
	if err != nil && ctx.Err() == nil {
		err = &BusyError{RetryAfter: sessionRetry}
	}
	return done, err
}

// HasRoom reports whether one more session with the peer would leave room for
// others: a second one on the same NAR must not keep another NAR waiting.
func (c *Client) HasRoom(p peer.ID) bool { return c.sessions.users(p) < maxSessions/2 }

// hold protects the connection while the session lasts and resets the stream
// with ctx. It returns what undoes this and ends the turn, and what undoes the
// latter only.
func (s *Session) hold(ctx context.Context, cm connmgr.ConnManager, done func()) (release func(), detach func() bool) {
	p, tag := s.Peer(), "nar-p2p/fetch/"+s.stream.ID()
	cm.Protect(p, tag)
	stop := context.AfterFunc(ctx, func() { _ = s.stream.Reset() })
	return sync.OnceFunc(func() {
		stop()
		cm.Unprotect(p, tag)
		done()
	}), stop
}

// Heard is when the peer last sent something, zero if it has not yet.
func (s *Session) Heard() time.Time { return s.heard.last() }

// Peer is who serves the session.
func (s *Session) Peer() peer.ID { return s.stream.Conn().RemotePeer() }

// Path is the way that the session takes.
func (s *Session) Path() Path { return pathOf(s.stream.Conn()) }

// RemoteAddr is where the peer is, or the relay that leads to it.
func (s *Session) RemoteAddr() ma.Multiaddr { return s.stream.Conn().RemoteMultiaddr() }

// Opened waits for the peer's consent and returns the manifest's root where the
// peer knows it. The error is ErrNotHeld or a *BusyError where it refuses.
func (s *Session) Opened() (root chunk.Root, known bool, err error) {
	if err := s.awaitOpened(); err != nil {
		return chunk.Root{}, false, s.failOpen(err)
	}
	return s.root, s.rootKnown, nil
}

func (s *Session) awaitOpened() error {
	if s.opened {
		return nil
	}
	answer, err := s.next()
	if err != nil {
		return err
	}
	opened, ok := answer.GetResponse().(*wirepb.NARResponse_Opened)
	if !ok {
		return fmt.Errorf("%w: answer %T to open", ErrProtocol, answer.GetResponse())
	}
	if s.root, s.rootKnown, err = rootFromWire(opened.Opened.GetManifestRoot()); err != nil {
		return err
	}
	s.opened = true
	return nil
}

// next reads the next message within the stall timeout.
func (s *Session) next() (*wirepb.NARResponse, error) {
	if err := s.in.wait(s.stall); err != nil {
		return nil, err
	}
	return s.read()
}

// read reads the next message, which must not be a refusal.
func (s *Session) read() (*wirepb.NARResponse, error) {
	answer := &wirepb.NARResponse{}
	if err := s.in.read(answer, maxNARResponse); err != nil {
		return nil, cutShort(err)
	}
	if r, ok := answer.GetResponse().(*wirepb.NARResponse_Refused); ok {
		return nil, refusal(r.Refused.GetStatus(), r.Refused.GetRetryAfterMs())
	}
	return answer, nil
}

// AskManifest asks for the NAR's manifest, to be received by ReceiveManifest.
func (s *Session) AskManifest() error {
	s.owed.Add(1)
	err := s.out.send(&wirepb.NARRequest{Request: &wirepb.NARRequest_GetManifest{GetManifest: &wirepb.GetManifest{}}})
	if err != nil {
		return fmt.Errorf("exchange: manifest: %s: %w", s.Peer(), err)
	}
	return nil
}

// ReceiveManifest reads the manifest of a NAR of this size in bytes and calls
// emit with successive pieces of its encoding, which emit must not keep. They
// are provisional until ReceiveManifest returns the root, which is that of the
// pieces. The error is ErrCorrupt where the peer found the NAR corrupt, or that
// of emit.
func (s *Session) ReceiveManifest(narSize int64, emit func(piece []byte) error) (chunk.Root, error) {
	err := s.awaitOpened()
	var root chunk.Root
	if err == nil {
		root, err = s.receiveManifest(chunk.MaxEncodedSize(narSize), emit)
	}
	if err != nil {
		return chunk.Root{}, s.fail("manifest", err)
	}
	s.owed.Add(-1)
	return root, nil
}

// receiveManifest reads pieces of limit bytes in all at most. A peer that sends
// less than minPiece bytes within the stall timeout has stalled.
func (s *Session) receiveManifest(limit int64, emit func(piece []byte) error) (root chunk.Root, err error) {
	sum := sha256.New()
	for fresh := minPiece; ; {
		if fresh >= minPiece {
			if err := s.in.wait(s.stall); err != nil {
				return root, err
			}
			fresh = 0
		}
		answer, err := s.read()
		if err != nil {
			return root, err
		}
		switch r := answer.GetResponse().(type) {
		case *wirepb.NARResponse_ManifestPiece:
			piece := r.ManifestPiece.GetData()
			limit -= int64(len(piece))
			if len(piece) == 0 || len(piece) > maxPiece || limit < 0 {
				return root, fmt.Errorf("%w: piece of %d bytes, %d too many in all", ErrProtocol, len(piece), max(0, -limit))
			}
			fresh += len(piece)
			sum.Write(piece)
			if err := emit(piece); err != nil {
				return root, err
			}
		case *wirepb.NARResponse_ManifestEnd:
			sum.Sum(root[:0])
			return root, checkEnd(r.ManifestEnd, root)
		default:
			return root, fmt.Errorf("%w: answer %T within a manifest", ErrProtocol, r)
		}
	}
}

// checkEnd checks how a manifest ended whose pieces have this root.
func checkEnd(end *wirepb.ManifestEnd, root chunk.Root) error {
	switch end.GetOutcome() {
	case wirepb.ManifestEnd_OUTCOME_CONFIRMED:
		said, err := oneFromWire[chunk.Root](end.GetManifestRoot())
		if err != nil {
			return fmt.Errorf("root: %w", err)
		}
		if said != root {
			return fmt.Errorf("%w: pieces of root %s, not %s", ErrProtocol, root, said)
		}
		return nil
	case wirepb.ManifestEnd_OUTCOME_CORRUPT:
		return ErrCorrupt
	default:
		return fmt.Errorf("%w: outcome %d", ErrProtocol, end.GetOutcome())
	}
}

// Ask asks for 1 to MaxRunChunks chunks that follow each other in the NAR. Each
// must then be received, in the order asked. A peer reads requests as it answers
// them, so only as many should be under way as keep it busy.
func (s *Session) Ask(chunks []chunk.Chunk) error {
	if len(chunks) == 0 || len(chunks) > MaxRunChunks {
		return fmt.Errorf("exchange: run of %d chunks, want 1 to %d", len(chunks), MaxRunChunks)
	}
	s.owed.Add(int64(len(chunks)))
	err := s.out.send(&wirepb.NARRequest{Request: &wirepb.NARRequest_Run{Run: spanToWire(chunks)}})
	if err != nil {
		return fmt.Errorf("exchange: run: %s: %w", s.Peer(), err)
	}
	return nil
}

// Receive reads the next chunk that was asked for into dst, which has its
// length, and checks its sum. Where that is not right the error is
// ErrWrongBytes.
func (s *Session) Receive(c *chunk.Chunk, dst []byte) error {
	p, err := s.Take(c, dst)
	if err != nil {
		return err
	}
	if err := p.Check(); err != nil {
		s.reset()
		return err
	}
	return nil
}

// Take reads the next chunk that was asked for, into dst, which has its length,
// unless it travels compressed. It is there once it has passed its check, which
// may go on while the next is read.
func (s *Session) Take(c *chunk.Chunk, dst []byte) (Parcel, error) {
	if err := s.awaitOpened(); err != nil {
		return Parcel{}, s.failOpen(err)
	}
	p := Parcel{peer: s.Peer(), chunk: c, dst: dst, decoder: s.decoder}
	if err := s.take(&p); err != nil {
		return Parcel{}, s.fail("chunk", err)
	}
	s.owed.Add(-1)
	return p, nil
}

func (s *Session) take(p *Parcel) error {
	answer, err := s.next()
	if err != nil {
		return err
	}
	r, ok := answer.GetResponse().(*wirepb.NARResponse_Chunk)
	if !ok {
		return fmt.Errorf("%w: answer %T instead of a chunk", ErrProtocol, answer.GetResponse())
	}
	length := int64(r.Chunk.GetLength())
	switch encoding := r.Chunk.GetEncoding(); {
	case encoding == wirepb.Encoding_ENCODING_RAW:
		if length != int64(len(p.dst)) {
			return fmt.Errorf("%w: %d bytes of a chunk of %d", ErrProtocol, length, len(p.dst))
		}
		_, err := io.ReadFull(s.in.r, p.dst)
		return cutShort(err)
	case encoding == wirepb.Encoding_ENCODING_ZSTD && s.mayBeZstd:
		if length >= int64(len(p.dst)) {
			return fmt.Errorf("%w: %d bytes compressed of a chunk of %d", ErrProtocol, length, len(p.dst))
		}
		p.compressed = make([]byte, length)
		_, err := io.ReadFull(s.in.r, p.compressed)
		return cutShort(err)
	default:
		return fmt.Errorf("%w: encoding %d was not offered", ErrProtocol, encoding)
	}
}

// Close ends the session, and makes a peer that is still sending stop.
func (s *Session) Close() error {
	if s.owed.Load() > 0 {
		s.release()
		return s.stream.Reset()
	}
	s.detach()
	err := s.stream.CloseWrite()
	s.closing.Do(func() { go s.awaitEnd() })
	return err
}

// Abort ends the session at once, whatever is under way. It may be called at any
// time.
func (s *Session) Abort() { s.reset() }

// awaitEnd ends the turn with the peer when that has ended the session too.
// Whoever begins another one before finds it with no room.
func (s *Session) awaitEnd() {
	defer s.release()
	_ = s.stream.SetReadDeadline(time.Now().Add(endTimeout)) // Where it fails so does the read.
	if _, err := s.stream.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		_ = s.stream.Close()
	} else {
		_ = s.stream.Reset()
	}
}

// failOpen ends a session that the peer has not opened with an error.
func (s *Session) failOpen(err error) error {
	if !isAnswer(err) && s.stream.Conn().IsClosed() {
		err = fmt.Errorf("%w: %w", ErrConnClosed, err)
	}
	return s.fail("open", err)
}

// fail ends the session with an error.
func (s *Session) fail(what string, err error) error {
	s.reset()
	return fmt.Errorf("exchange: %s: %s: %w", what, s.Peer(), err)
}

func (s *Session) reset() {
	s.release()
	_ = s.stream.Reset()
}
