package swarm

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

// Manifest asks providers, one after the other, for the manifest of a NAR, and
// for nothing of the NAR. It is one provider's word, and proves nothing. The
// error is ErrNoProviders where nobody was found, or nobody could be reached.
func (s *Swarm) Manifest(ctx context.Context, want Want) (*chunk.Manifest, error) {
	if want.Size <= chunk.ImplicitSize {
		return chunk.Decode(nil, want.Hash, want.Size)
	}
	failure := ErrNoProviders
	tried := 0
	for p := range s.finder.Providers(ctx, want.Hash, want.Strangers) {
		if !s.standing.Usable(p.ID) || s.client.Connect(ctx, p) != nil {
			continue
		}
		m, err := s.manifestFrom(ctx, p.ID, want)
		if err == nil {
			return m, nil
		}
		failure = fmt.Errorf("swarm: manifest: %w", err)
		if tried++; tried == maxProviders {
			break
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, failure
}

// manifestFrom asks one provider.
func (s *Swarm) manifestFrom(ctx context.Context, p peer.ID, want Want) (*chunk.Manifest, error) {
	session, err := s.client.OpenNAR(ctx, p, want.Hash, true)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	if err := session.AskManifest(); err != nil {
		return nil, err
	}
	if _, _, err := session.Opened(); err != nil {
		return nil, err
	}
	d := chunk.NewDecoder(want.Hash, want.Size)
	_, err = session.ReceiveManifest(want.Size, func(piece []byte) error {
		if _, err := d.Write(piece); err != nil {
			return fmt.Errorf("%w: %w", exchange.ErrProtocol, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d.Finish()
}
