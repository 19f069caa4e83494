package main

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
	"github.com/nar-p2p/nar-p2p/substituter"
)

// manifestTime is how long a manifest is waited for.
const manifestTime = 20 * time.Second

var errNoReuse = &control.Error{
	Status: http.StatusConflict, Message: "this node takes nothing from its store",
	Hint: "it needs a Nix store, peers, and reuse.enabled in the configuration",
}

// UpgradePlan implements control.Node.
func (n node) UpgradePlan(ctx context.Context, paths []nix.StorePath, alone bool) iter.Seq2[*control.UpgradePath, error] {
	if n.reuse == nil || n.node == nil {
		return refuse[control.UpgradePath](errNoReuse)
	}
	return walkClosure(ctx, paths, alone, n.cost)
}

func (n node) cost(ctx context.Context, path nix.StorePath) (c *control.UpgradePath, references []nix.StorePath) {
	c = &control.UpgradePath{StorePath: path.String()}
	local, err := n.store.Info(ctx, path.HashPart())
	if err == nil && local.Path == path {
		c.NARSize, c.Present = local.NARSize, true
		return c, nil // its references are there too
	}
	info, strangers, err := n.substituter.Lookup(ctx, path.HashPart())
	switch {
	case errors.Is(err, narstore.ErrNotFound), errors.Is(err, substituter.ErrUnknown):
		c.Problem, c.NotFound = errNoNarinfo.Message, true
		return c, nil
	case err != nil:
		c.Problem = err.Error()
		return c, nil
	}
	c.NARSize, c.Transfer = info.NARSize, info.NARSize
	if err := n.assess(ctx, c, info, strangers); err != nil {
		c.Problem = err.Error()
	}
	return c, info.References
}

// assess fills in what of a path lies in the store.
func (n node) assess(ctx context.Context, c *control.UpgradePath, info *narinfo.Info, strangers bool) error {
	ctx, cancel := context.WithTimeout(ctx, manifestTime)
	defer cancel()
	m, err := n.node.Manifest(ctx, swarm.Want{
		Hash: info.NARHash, Path: info.StorePath, Size: info.NARSize, Strangers: strangers,
	})
	switch {
	case errors.Is(err, swarm.ErrNoProviders):
		return errors.New("no peer has it")
	case err != nil:
		return err
	}
	a, err := n.reuse.Assess(ctx, reuse.Want{
		Path: info.StorePath, Hash: info.NARHash, Size: info.NARSize, References: info.References, Strangers: strangers,
	}, m)
	if err != nil {
		return err
	}
	c.BySum, c.ByMaskedSum = a.BySum, a.ByMaskedSum
	c.Transfer = c.NARSize - a.BySum - a.ByMaskedSum + int64(len(m.Encode()))
	return nil
}
