package main

import (
	"context"
	"fmt"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// Explain implements control.Node.
func (n node) Explain(ctx context.Context, target control.Target) (*explain.Path, error) {
	told, err := n.substituter.Explain(ctx, target.Part)
	if err != nil {
		return nil, err
	}
	if path := target.Path.String(); path != "" && told.StorePath != "" && told.StorePath != path {
		told.Notes = append(told.Notes, "The path with this hash part is "+told.StorePath+".")
	}
	return told, nil
}

// shared says why peers do not get a path from this node; nil if they do.
func (d *daemon) shared(ctx context.Context, path nix.StorePath) error {
	if !d.serves() {
		return fmt.Errorf("profile %s shares nothing", d.cfg.Profile)
	}
	return d.catalog.Explain(ctx, path)
}

var _ substituter.Inquirer = peers{}

// Inquire tells what peers say of a NAR.
func (p peers) Inquire(ctx context.Context, hash nix.NARHash, strangers bool) *explain.Peers {
	told := &explain.Peers{Answers: []explain.PeerAnswer{}}
	for _, peer := range p.Peers() {
		if !peer.Exchange {
			continue
		}
		told.Connected++
		if peer.LAN {
			told.LAN++
		}
		if peer.Allowed {
			told.Allowed++
		}
	}
	if dht := p.Status().DHT; dht != nil {
		told.Routing = dht.Peers
	}
	answers, searched := p.Node.Inquire(ctx, hash, strangers)
	told.Searched = searched
	for _, a := range answers {
		answer := explain.PeerAnswer{
			ID: a.Peer.ID.String(), LAN: a.Peer.LAN, Allowed: a.Peer.Allowed, Relayed: a.Connected && a.Peer.Relayed,
			Connected: a.Connected, LatencySeconds: a.Peer.RTT.Seconds(), Holds: a.Holds,
		}
		if a.Err != nil {
			answer.Error = a.Err.Error()
		}
		told.Answers = append(told.Answers, answer)
	}
	switch {
	case p.profile == config.ProfileLAN:
		told.Unasked = "profile lan looks for nobody beyond the local network"
	case p.public && !strangers:
		told.Unasked = "strangers are not asked about it, nor is the DHT"
	}
	return told
}
