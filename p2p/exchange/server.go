package exchange

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
	"github.com/nar-p2p/nar-p2p/p2p/work"
)

// ServerConfig sets up a Server. Its zero value serves everybody on the public
// network.
type ServerConfig struct {
	// Prefix begins the protocol IDs; "" is DefaultPrefix.
	Prefix protocol.ID
	// Admit reports whether the peer at the other side of a connection is answered at
	// all; nil admits everybody. Others find their streams reset.
	Admit func(network.Conn) bool
	// Relays tells of those that may carry NARs; nil: none may. Sessions through
	// others are refused.
	Relays Relays
	// Sessions and SessionsPerPeer bound the NAR sessions, and apart from these
	// the have and narinfo requests, that are served at once; 0 is 64 and 16,
	// as many as Nix fetches NARs at once. A session takes up to 1 MiB of memory
	// and one open NAR. Peers of one group of addresses, beyond the local network,
	// have at most half of those that others do not have. Whoever is too many waits
	// for a moment and is sent away.
	Sessions, SessionsPerPeer int
	// Work is how much processor time a second peers beyond the local network may
	// have all together, by estimate; 0 is 1 s. See package work.
	Work time.Duration
	// UploadLimit is how many bytes per second are sent in all, TLS and what is
	// below it not counted; 0 sets no limit. See LimitUploads.
	UploadLimit int64
	// RequestTimeout is how long a stream may be without its first request; 0 is
	// 10 s. Until then it occupies a place for nothing.
	RequestTimeout time.Duration
	// IdleTimeout is how long a session may be without a request; 0 is 2 minutes.
	IdleTimeout time.Duration
	// WriteTimeout is how long a peer may take to read 128 KiB; 0 is 30 s.
	WriteTimeout time.Duration
	// ReclaimAfter is how long a stream may be without a request before others may
	// have its place; 0 is 1 s. A peer may take ten times that to read 128 KiB.
	ReclaimAfter time.Duration
	// DrainTimeout is how long the requests under way may go on when Run's
	// context ends; 0 is 10 s.
	DrainTimeout time.Duration
	// RetryAfter is when a peer that found no room is to try again, if it is one
	// of few; 0 is 2 s.
	RetryAfter time.Duration
	// Registerer receives the server's metrics; nil for none.
	Registerer prometheus.Registerer
}

func (c ServerConfig) withDefaults() ServerConfig {
	if c.Admit == nil {
		c.Admit = func(network.Conn) bool { return true }
	}
	setDefault(&c.Sessions, 64)
	setDefault(&c.SessionsPerPeer, 16)
	setDefault(&c.Work, time.Second)
	setDefault(&c.RequestTimeout, 10*time.Second)
	setDefault(&c.IdleTimeout, 2*time.Minute)
	setDefault(&c.WriteTimeout, 30*time.Second)
	setDefault(&c.ReclaimAfter, time.Second)
	setDefault(&c.DrainTimeout, 10*time.Second)
	setDefault(&c.RetryAfter, 2*time.Second)
	return c
}

// setDefault sets a setting that is zero.
func setDefault[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

// maxPooled is up to which size an outbox is kept for use again, in bytes: a write
// and a chunk, and what append makes of that.
const maxPooled = 2 * (writeSize + chunk.MaxLength)

// maxLines is how many peers are remembered by how fast the line to them is.
const maxLines = 1024

// Server answers peers from a Shelf.
type Server struct {
	host    host.Host
	shelf   Shelf
	cfg     ServerConfig
	ids     protocols
	log     *zap.Logger
	encoder *zstd.Encoder
	// buffers holds *[]byte of chunk.MaxLength bytes, outboxes *outbox.
	buffers, outboxes sync.Pool
	// sessions and queries are the slots for NAR sessions and for the rest.
	sessions, queries *slots
	work              *work.Limit
	uplink            *uplink
	// lines are the ways to the peers that were served last.
	lines      *lru.Cache[peer.ID, *line]
	compressor *compressorMeter
	counters   counters
	refusals   refusals

	// handlers is held while the host's are changed, and taken before mu.
	handlers sync.Mutex
	// setHandlers is nil while Run does not run.
	setHandlers func()

	mu       sync.Mutex
	draining bool
	paused   bool
	streams  map[network.Stream]struct{}
	// idle is closed once draining is set and no stream is left.
	idle chan struct{}
}

// NewServer returns a server that answers from shelf once it runs.
func NewServer(h host.Host, shelf Shelf, cfg ServerConfig, log *zap.Logger) *Server {
	cfg = cfg.withDefaults()
	lines, err := lru.New[peer.ID, *line](maxLines)
	if err != nil {
		panic("exchange: lines: " + err.Error())
	}
	s := &Server{
		host:       h,
		shelf:      shelf,
		cfg:        cfg,
		ids:        protocolsOf(cfg.Prefix),
		log:        log.Named("exchange"),
		encoder:    newEncoder(),
		sessions:   newSlots(cfg.Sessions, cfg.SessionsPerPeer),
		queries:    newSlots(cfg.Sessions, cfg.SessionsPerPeer),
		work:       work.New(cfg.Work),
		uplink:     newUplink(cfg.UploadLimit),
		lines:      lines,
		compressor: newCompressorMeter(),
		streams:    make(map[network.Stream]struct{}),
		idle:       make(chan struct{}),
	}
	s.buffers.New = newBuffer
	s.outboxes.New = func() any { return &outbox{} }
	if cfg.Registerer != nil {
		s.register(cfg.Registerer)
	}
	return s
}

// LimitUploads changes how many bytes per second are sent in all; 0 sets no
// limit.
func (s *Server) LimitUploads(bytesPerSecond int64) { s.uplink.limit(bytesPerSecond) }

// Pause has peers answered no more until it is called with false, and ends what
// they are being sent. They are told that the node does not speak the protocols
// any more, so that they do not ask, nor count it as a failure.
func (s *Server) Pause(paused bool) {
	s.handlers.Lock()
	defer s.handlers.Unlock()
	s.mu.Lock()
	changed := s.paused != paused
	s.paused = paused
	if paused {
		for st := range s.streams {
			_ = st.Reset() // its handler notices, and ends
		}
	}
	s.mu.Unlock()
	switch {
	case !changed || s.setHandlers == nil:
	case paused:
		s.removeHandlers()
	default:
		s.setHandlers()
	}
}

// listen sets the handlers, by a function that Pause may need again, unless the
// server is paused; nil ends that.
func (s *Server) listen(set func()) {
	s.handlers.Lock()
	defer s.handlers.Unlock()
	s.setHandlers = set
	s.mu.Lock()
	paused := s.paused
	s.mu.Unlock()
	if set != nil && !paused {
		set()
	}
}

func (s *Server) removeHandlers() {
	for _, id := range []protocol.ID{s.ids.have, s.ids.narinfo, s.ids.nar} {
		s.host.RemoveStreamHandler(id)
	}
}

// Run answers peers until ctx ends. Then it takes no more requests, lets those
// under way finish within the drain timeout, and returns nil. Requests that hang
// in the shelf, as on a dead disk, it leaves behind. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	// Requests outlive ctx by the drain timeout.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	services := []service{
		{id: s.ids.have, slots: s.queries, serve: s.serveHave, busy: busyHave},
		{id: s.ids.narinfo, slots: s.queries, serve: s.serveNarinfo, busy: busyNarinfo},
		{id: s.ids.nar, slots: s.sessions, serve: s.serveNAR, busy: busyNAR},
	}
	s.listen(func() {
		for _, svc := range services {
			s.host.SetStreamHandler(svc.id, func(st network.Stream) { s.handle(hard, st, svc) })
		}
	})
	<-ctx.Done()
	s.listen(nil)
	s.removeHandlers()
	s.drain(cancel)
	return nil
}

// unwindTimeout is how long streams that were reset may take to notice.
const unwindTimeout = time.Second

// drain waits for the streams under way, for the drain timeout at most. Then it
// resets them.
func (s *Server) drain(reset context.CancelFunc) {
	s.mu.Lock()
	s.draining = true
	for st := range s.streams {
		// Wakes sessions that wait for a request. Where it fails the stream is
		// gone already, or gets its reset below.
		_ = st.SetReadDeadline(time.Unix(1, 0))
	}
	s.leave()
	s.mu.Unlock()
	if s.awaitIdle(s.cfg.DrainTimeout) {
		return
	}
	reset()
	if !s.awaitIdle(unwindTimeout) {
		s.log.Warn("requests hang in the store", zap.Int("streams", s.open()))
	}
}

// awaitIdle waits for the last stream to end, and reports whether it has.
func (s *Server) awaitIdle(patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.idle:
		return true
	case <-timer.C:
		return false
	}
}

// service is one protocol's handler.
type service struct {
	id    protocol.ID
	slots *slots
	serve func(ctx context.Context, c *call) error
	// busy makes the answer for whoever there is no room for.
	busy func(retryAfterMS uint32) proto.Message
}

// call is a stream that is being served.
type call struct {
	holder

	stream network.Stream
	in     *inbox
	out    *outbox
	slot   *slot
}

// errLostSlot ends a stream whose slot was given to another.
var errLostSlot = errors.New("the slot was given to another")

// noRoomError ends a stream with word that there is no room, and why.
type noRoomError struct {
	reason refusalReason
	// retryAfter is when there may be; 0 where nobody knows.
	retryAfter time.Duration
}

func (e *noRoomError) Error() string { return "no room: " + string(e.reason) }

// handle serves one stream. When ctx ends the stream is reset.
func (s *Server) handle(ctx context.Context, st network.Stream, svc service) {
	remote := st.Conn().RemotePeer()
	if !s.begin(st) {
		_ = st.Reset()
		return
	}
	defer s.end(st)
	if err := st.Scope().SetService(ServiceName); err != nil || !s.cfg.Admit(st.Conn()) {
		s.refusals.count(refusedStranger)
		_ = st.Reset()
		return
	}
	if svc.id == s.ids.nar && !s.cfg.Relays.carries(st.Conn()) {
		s.refusals.count(refusedRelayed)
		_ = st.Reset()
		return
	}
	defer context.AfterFunc(ctx, func() { _ = st.Reset() })()
	c := &call{
		holder: holderOf(remote, st.Conn().RemoteMultiaddr()),
		stream: st,
		in:     newInbox(st, queryBuffer),
		out:    s.outbox(ctx, st, svc),
	}
	defer s.putOutbox(c.out)
	err := s.serve(ctx, c, svc)
	if noRoom, ok := errors.AsType[*noRoomError](err); ok {
		s.refusals.count(noRoom.reason)
		err = c.out.send(svc.busy(s.retryAfterMS(svc, noRoom)))
	}
	if err != nil {
		_ = st.Reset()
		s.log.Debug("stream failed", zap.String("protocol", string(svc.id)), zap.Stringer("peer", remote), zap.Error(err))
		return
	}
	_ = st.Close()
}

// serve serves a stream within a slot.
func (s *Server) serve(ctx context.Context, c *call, svc service) error {
	if err := s.charge(c.holder, workOfStream); err != nil {
		return err
	}
	wake := func() { _ = c.stream.SetDeadline(time.Unix(1, 0)) } // Where it fails the stream is gone.
	var reason refusalReason
	if c.slot, reason = svc.slots.await(ctx, c.holder, wake); c.slot == nil {
		return &noRoomError{reason: reason}
	}
	c.out.slot = c.slot
	err := svc.serve(ctx, c)
	c.out.slot = nil
	c.slot.release()
	return err
}

func (s *Server) outbox(ctx context.Context, st network.Stream, svc service) *outbox {
	out, ok := s.outboxes.Get().(*outbox)
	if !ok {
		panic("exchange: pool of outboxes holds something else")
	}
	f := flow{peer: st.Conn().RemotePeer(), queries: svc.slots == s.queries}
	out.stream, out.timeout, out.gather, out.buf = st, s.cfg.WriteTimeout, writeSize, out.buf[:0]
	out.grace = stallGrace * s.cfg.ReclaimAfter
	out.pace = func(n int) error { return s.uplink.await(ctx, f, n) }
	return out
}

func (s *Server) putOutbox(out *outbox) {
	if cap(out.buf) > maxPooled { // it held a large record
		return
	}
	*out = outbox{buf: out.buf}
	s.outboxes.Put(out)
}

// retryAfterMS is when whoever there is no room for may try again. It is a millisecond
// at least: 0 would be at once.
func (s *Server) retryAfterMS(svc service, e *noRoomError) uint32 {
	after := e.retryAfter
	if after == 0 {
		after = s.refusals.retryAfter(s.cfg.RetryAfter, svc.slots.total)
	}
	after = min(after, max(maxRetry, s.cfg.RetryAfter)) + time.Millisecond - 1
	return uint32(after.Milliseconds())
}

// begin takes note of a stream, and reports false where the server is ending or
// paused.
func (s *Server) begin(st network.Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || s.paused {
		return false
	}
	s.streams[st] = struct{}{}
	return true
}

func (s *Server) end(st network.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
	s.leave()
}

// leave tells drain where no stream is left; mu is held.
func (s *Server) leave() {
	if s.draining && len(s.streams) == 0 {
		close(s.idle)
	}
}

// open returns the number of streams.
func (s *Server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// errDraining ends a session between two requests.
var errDraining = errors.New("the server is stopping")

// awaitRequest reads the next request of a stream within timeout. The error is
// io.EOF where the peer has ended it, errDraining where the server is ending,
// and a *noRoomError where another has got the slot.
func (s *Server) awaitRequest(c *call, m proto.Message, limit int, timeout time.Duration) error {
	if err := c.in.wait(timeout); err != nil {
		return err
	}
	// The deadline stands before the slot is offered to others, and before the
	// question whether to drain; who takes the slot, and drain, set their own
	// behind that: one of them ends the wait.
	c.slot.waiting(s.cfg.ReclaimAfter)
	s.mu.Lock()
	draining := s.draining
	s.mu.Unlock()
	if draining {
		return errDraining
	}
	err := c.in.read(m, limit)
	switch {
	case errors.Is(err, io.EOF):
		return err
	case !c.slot.working():
		return &noRoomError{reason: refusedIdle}
	case err != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.draining {
			return errDraining
		}
	}
	return err
}

func busyHave(retryAfterMS uint32) proto.Message {
	return &wirepb.HaveResponse{Status: wirepb.Status_STATUS_BUSY, RetryAfterMs: retryAfterMS}
}

func busyNarinfo(retryAfterMS uint32) proto.Message {
	return &wirepb.NarinfoResponse{Status: wirepb.Status_STATUS_BUSY, RetryAfterMs: retryAfterMS}
}

func busyNAR(retryAfterMS uint32) proto.Message {
	return refuse(wirepb.Status_STATUS_BUSY, retryAfterMS)
}

func refuse(status wirepb.Status, retryAfterMS uint32) *wirepb.NARResponse {
	return &wirepb.NARResponse{Response: &wirepb.NARResponse_Refused{
		Refused: &wirepb.Refused{Status: status, RetryAfterMs: retryAfterMS},
	}}
}
