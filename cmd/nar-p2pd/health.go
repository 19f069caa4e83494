package main

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter"
)

// inquiryTime is how long holders of one path are looked for.
const inquiryTime = 10 * time.Second

// Health implements control.Closures.
func (n node) Health(ctx context.Context, paths []nix.StorePath, alone bool) iter.Seq2[*control.HealthPath, error] {
	if n.node == nil {
		return refuse[control.HealthPath](errNoPeers)
	}
	return walkClosure(ctx, paths, alone, n.health)
}

// health counts who has a path. Its record is that of the store, if it is there,
// so that a closure that is here needs nobody else to be walked.
func (n node) health(ctx context.Context, path nix.StorePath) (h *control.HealthPath, references []nix.StorePath) {
	h = &control.HealthPath{StorePath: path.String()}
	var hash nix.NARHash
	var strangers bool
	if local, err := n.store.Info(ctx, path.HashPart()); err == nil && local.Path == path {
		h.Present, h.NARSize, hash, references = true, local.NARSize, local.NARHash, local.References
		// What this node announces is no secret, and all else is.
		strangers = n.provides(hash)
	} else {
		info, askable, err := n.substituter.Lookup(ctx, path.HashPart())
		switch {
		case errors.Is(err, narstore.ErrNotFound), errors.Is(err, substituter.ErrUnknown):
			h.Problem, h.NotFound = errNoNarinfo.Message, true
			return h, nil
		case err != nil:
			h.Problem = err.Error()
			return h, nil
		}
		h.NARSize, hash, references, strangers = info.NARSize, info.NARHash, info.References, askable
	}
	if n.cfg.Network == config.PublicNetwork && !strangers {
		h.Problem = "strangers are not asked about it"
	}
	ctx, cancel := context.WithTimeout(ctx, inquiryTime)
	defer cancel()
	answers, _ := n.node.Inquire(ctx, hash, strangers)
	for _, a := range answers {
		if a.Holds {
			h.Providers++
		}
		if a.Holds && a.Peer.LAN {
			h.LAN++
		}
	}
	return h, references
}
