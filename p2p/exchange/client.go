package exchange

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/internal/moment"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// ClientConfig sets up a Client.
type ClientConfig struct {
	// Prefix begins the protocol IDs; "" is DefaultPrefix.
	Prefix protocol.ID
	// ConnectTimeout bounds the way to a peer, hole punching included; 0 is 15 s.
	ConnectTimeout time.Duration
	// QueryTimeout bounds one Have or Narinfos, connected or not; 0 is 10 s.
	QueryTimeout time.Duration
	// StallTimeout is how long a session waits for one message, for 4 KiB of a
	// manifest, or for one chunk to come in whole; 0 is 8 s. Whoever reads the NAR
	// has little more patience, and another provider is to take over within it.
	StallTimeout time.Duration
	// PunchTimeout is how long a direct connection with a peer is waited for that a
	// relay leads to; 0 is 10 s.
	PunchTimeout time.Duration
	// Relays tells of those that may carry NARs; nil: none may.
	Relays Relays
	// Observer, if not nil, hears how requests to peers went.
	Observer Observer
}

// Observer hears how requests to peers went. Its methods must not block.
type Observer interface {
	// Answered says that the peer has answered, and how long after it was asked.
	Answered(p peer.ID, after time.Duration)
	// Failed says that the peer could not be reached or did not answer. That
	// whoever asked lost patience is not the peer's failure.
	Failed(p peer.ID)
}

type nobody struct{}

func (nobody) Answered(peer.ID, time.Duration) {}
func (nobody) Failed(peer.ID)                  {}

func (c ClientConfig) withDefaults() ClientConfig {
	setDefault(&c.ConnectTimeout, 15*time.Second)
	setDefault(&c.QueryTimeout, 10*time.Second)
	setDefault(&c.StallTimeout, 8*time.Second)
	setDefault(&c.PunchTimeout, punchTimeout)
	if c.Observer == nil {
		c.Observer = nobody{}
	}
	return c
}

// Client asks peers. Its methods are safe for concurrent use.
type Client struct {
	host    host.Host
	cfg     ClientConfig
	ids     protocols
	log     *zap.Logger
	decoder *zstd.Decoder
	// queries and sessions bound what is under way with each peer.
	queries, sessions *turns
	ears              *ears
	unpunched         *unpunched
	// punches is since when this node punches holes.
	punches moment.Moment
}

// NewClient returns a client that asks by way of h.
func NewClient(h host.Host, cfg ClientConfig, log *zap.Logger) *Client {
	return &Client{
		host:     h,
		cfg:      cfg.withDefaults(),
		ids:      protocolsOf(cfg.Prefix),
		log:      log.Named("exchange"),
		decoder:  newDecoder(),
		queries:  newTurns(maxQueries),
		sessions: newTurns(maxSessions),
		ears:     newEars(),

		unpunched: newUnpunched(),
	}
}

// Connect takes note of the peer's addresses and connects to it where it is not
// connected yet, if need be through a relay.
func (c *Client) Connect(ctx context.Context, p peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	if err := c.host.Connect(network.WithAllowLimitedConn(ctx, "nar-p2p"), p); err != nil {
		c.failed(ctx, p.ID)
		return fmt.Errorf("exchange: connect to %s: %w", p.ID, err)
	}
	return nil
}

// failed tells of a peer's failure, unless the request was given up.
func (c *Client) failed(ctx context.Context, p peer.ID) {
	if !errors.Is(context.Cause(ctx), context.Canceled) {
		c.cfg.Observer.Failed(p)
	}
}

// DirectAddr returns the address of a direct connection to the peer, one that
// does not lead through a relay: what proves where the peer is.
func (c *Client) DirectAddr(p peer.ID) (ma.Multiaddr, bool) {
	for _, conn := range c.host.Network().ConnsToPeer(p) {
		if !conn.IsClosed() && !conn.Stat().Limited && !isRelayed(conn.RemoteMultiaddr()) {
			return conn.RemoteMultiaddr(), true
		}
	}
	return nil, false
}

func isRelayed(addr ma.Multiaddr) bool {
	_, err := addr.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// Have asks the peer which of at most MaxHashes NARs it holds. The answer has
// one Holding for each hash, in their order.
func (c *Client) Have(ctx context.Context, p peer.ID, hashes []nix.NARHash) ([]Holding, error) {
	if len(hashes) == 0 || len(hashes) > MaxHashes {
		return nil, fmt.Errorf("exchange: have: %d hashes, want 1 to %d", len(hashes), MaxHashes)
	}
	var holdings []Holding
	req := &wirepb.HaveRequest{NarHashes: fixedToWire(hashes)}
	err := c.query(ctx, p, c.ids.have, req, func(in *inbox) (err error) {
		holdings, err = readHoldings(in, len(hashes))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("exchange: have: %s: %w", p, err)
	}
	return holdings, nil
}

func readHoldings(in *inbox, want int) ([]Holding, error) {
	var answer wirepb.HaveResponse
	if err := in.read(&answer, maxHaveResponse); err != nil {
		return nil, cutShort(err)
	}
	if answer.GetStatus() != wirepb.Status_STATUS_OK {
		return nil, refusal(answer.GetStatus(), answer.GetRetryAfterMs())
	}
	if got := len(answer.GetHoldings()); got != want {
		return nil, fmt.Errorf("%w: %d holdings for %d hashes", ErrProtocol, got, want)
	}
	holdings := make([]Holding, want)
	for i, m := range answer.GetHoldings() {
		h, err := holdingFromWire(m)
		if err != nil {
			return nil, fmt.Errorf("holding %d: %w", i, err)
		}
		holdings[i] = h
	}
	return holdings, nil
}

// Narinfos asks the peer for the records of at most MaxHashParts store paths.
// The answer has one entry for each hash part that the peer has answered, in
// their order: nil where it has no record. Where it had no room for all of them
// the error is a *BusyError, beside the answers to the first ones. The records
// are parsed, and are for the paths asked; their signatures are not verified.
func (c *Client) Narinfos(ctx context.Context, p peer.ID, parts []nix.HashPart) ([]*narinfo.Info, error) {
	if len(parts) == 0 || len(parts) > MaxHashParts {
		return nil, fmt.Errorf("exchange: narinfo: %d hash parts, want 1 to %d", len(parts), MaxHashParts)
	}
	var infos []*narinfo.Info
	req := &wirepb.NarinfoRequest{HashParts: fixedToWire(parts)}
	err := c.query(ctx, p, c.ids.narinfo, req, func(in *inbox) (err error) {
		infos, err = readNarinfos(in, parts)
		return err
	})
	if err != nil {
		err = fmt.Errorf("exchange: narinfo: %s: %w", p, err)
	}
	return infos, err
}

func readNarinfos(in *inbox, parts []nix.HashPart) ([]*narinfo.Info, error) {
	infos := make([]*narinfo.Info, 0, len(parts))
	total := 0
	for _, part := range parts {
		var answer wirepb.NarinfoResponse
		if err := in.read(&answer, maxNarinfoResponse); err != nil {
			return nil, cutShort(err)
		}
		switch answer.GetStatus() {
		case wirepb.Status_STATUS_OK:
		case wirepb.Status_STATUS_NOT_HELD:
			infos = append(infos, nil)
			continue
		case wirepb.Status_STATUS_BUSY:
			return infos, refusal(answer.GetStatus(), answer.GetRetryAfterMs())
		default:
			return nil, refusal(answer.GetStatus(), 0)
		}
		// The server stops behind the record that fills its budget.
		if total >= maxNarinfoBytes {
			return nil, fmt.Errorf("%w: more than %d bytes of records", ErrProtocol, maxNarinfoBytes)
		}
		total += len(answer.GetNarinfo())
		info, err := narinfo.Parse(answer.GetNarinfo())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if got := info.StorePath.HashPart(); got != part {
			return nil, fmt.Errorf("%w: record of %s, asked for %s", ErrProtocol, got, part)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// query sends one request and reads its answer. Limited connections will do.
func (c *Client) query(
	ctx context.Context, p peer.ID, id protocol.ID, req proto.Message, read func(*inbox) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.QueryTimeout)
	defer cancel()
	done, err := c.queries.take(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	st, err := c.host.NewStream(network.WithAllowLimitedConn(ctx, "nar-p2p"), p, id)
	if err != nil {
		c.failed(ctx, p)
		return orCause(ctx, err)
	}
	asked := time.Now()
	defer context.AfterFunc(ctx, func() { _ = st.Reset() })()
	out := outbox{stream: st, timeout: c.cfg.QueryTimeout}
	// A peer without room answers and closes before it reads, which can fail the
	// write: so the answer is read in any case.
	writeErr := out.send(req)
	in := newInbox(&heardStream{Stream: st, ears: c.ears}, queryBuffer)
	if err = in.wait(c.cfg.QueryTimeout); err == nil {
		err = read(in)
	}
	if err != nil && (!isAnswer(err) || errors.Is(err, ErrProtocol)) {
		c.failed(ctx, p)
	} else {
		c.cfg.Observer.Answered(p, time.Since(asked))
	}
	if err != nil {
		_ = st.Reset()
		return orCause(ctx, firstCause(err, writeErr))
	}
	_ = st.Close()
	return nil
}

// firstCause returns the error of a write where the read behind it found no
// answer of the peer's.
func firstCause(readErr, writeErr error) error {
	if writeErr != nil && !isAnswer(readErr) {
		return writeErr
	}
	return readErr
}

// isAnswer reports whether err tells what the peer said rather than that it
// could not be heard.
func isAnswer(err error) bool {
	busy := (*BusyError)(nil)
	return errors.Is(err, ErrNotHeld) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrProtocol) || errors.As(err, &busy)
}

// orCause returns why ctx ended, where that is why the stream failed.
func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !isAnswer(err) {
		return fmt.Errorf("%w (%v)", cause, err)
	}
	return err
}
