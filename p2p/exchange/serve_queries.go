package exchange

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// queryBuffer is how much of a have or narinfo stream is read ahead, in bytes.
const queryBuffer = 4 << 10

// serveHave answers the one request of a have stream.
func (s *Server) serveHave(_ context.Context, c *call) error {
	var req wirepb.HaveRequest
	if err := s.awaitRequest(c, &req, maxHaveRequest, s.cfg.RequestTimeout); err != nil {
		return err
	}
	hashes, err := fixedFromWire[nix.NARHash](req.GetNarHashes(), MaxHashes)
	if err != nil {
		return fmt.Errorf("have: NAR hashes: %w", err)
	}
	if err := s.charge(c.holder, time.Duration(len(hashes))*workOfHash); err != nil {
		return err
	}
	s.counters.queries.Add(1)
	answer := &wirepb.HaveResponse{Status: wirepb.Status_STATUS_OK, Holdings: make([]*wirepb.Holding, len(hashes))}
	for i, hash := range hashes {
		root, rootKnown, held := s.shelf.Held(hash)
		answer.Holdings[i] = Holding{Held: held, Root: root, RootKnown: rootKnown}.toWire()
	}
	return c.out.send(answer)
}

// serveNarinfo answers the one request of a narinfo stream.
func (s *Server) serveNarinfo(ctx context.Context, c *call) error {
	var req wirepb.NarinfoRequest
	if err := s.awaitRequest(c, &req, maxNarinfoRequest, s.cfg.RequestTimeout); err != nil {
		return err
	}
	parts, err := fixedFromWire[nix.HashPart](req.GetHashParts(), MaxHashParts)
	if err != nil {
		return fmt.Errorf("narinfo: hash parts: %w", err)
	}
	if err := s.charge(c.holder, time.Duration(len(parts))*workOfRecord); err != nil {
		return err
	}
	s.counters.queries.Add(1)
	sent := 0
	for _, part := range parts {
		if sent >= maxNarinfoBytes {
			return c.out.send(&wirepb.NarinfoResponse{Status: wirepb.Status_STATUS_BUSY})
		}
		answer := &wirepb.NarinfoResponse{Status: wirepb.Status_STATUS_NOT_HELD}
		if text := s.narinfo(ctx, part); text != nil {
			answer.Status, answer.Narinfo = wirepb.Status_STATUS_OK, text
		}
		sent += len(answer.GetNarinfo())
		if err := c.out.add(answer); err != nil {
			return err
		}
	}
	return c.out.flush()
}

// narinfo returns the record of a path as text, or nil.
func (s *Server) narinfo(ctx context.Context, part nix.HashPart) []byte {
	info, err := s.shelf.Narinfo(ctx, part)
	if err != nil {
		// What goes wrong in the store is no business of peers.
		if !errors.Is(err, narstore.ErrNotFound) {
			s.log.Warn("record not read", zap.Stringer("hashPart", part), zap.Error(err))
		}
		return nil
	}
	text := info.Bytes()
	if len(text) > narinfo.MaxSize {
		return nil
	}
	return text
}
