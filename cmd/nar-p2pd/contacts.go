package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/p2p"
)

// Connect implements control.Contacts.
func (n node) Connect(ctx context.Context, info peer.AddrInfo) error {
	if n.node == nil {
		return errNoPeers
	}
	return explained(n.node.Connect(ctx, info))
}

// Ping implements control.Contacts.
func (n node) Ping(ctx context.Context, p peer.ID) (time.Duration, error) {
	if n.node == nil {
		return 0, errNoPeers
	}
	took, err := n.node.Ping(ctx, p)
	return took, explained(err)
}

// Ban implements control.Contacts.
func (n node) Ban(ctx context.Context, p peer.ID, until time.Time) error {
	if n.node == nil {
		return errNoPeers
	}
	return n.node.Ban(ctx, p, until)
}

// Unban implements control.Contacts.
func (n node) Unban(ctx context.Context, p peer.ID) (bool, error) {
	if n.node == nil {
		return false, errNoPeers
	}
	return n.node.Unban(ctx, p)
}

// Bans implements control.Contacts.
func (n node) Bans() ([]control.Ban, error) {
	if n.node == nil {
		return nil, errNoPeers
	}
	bans := []control.Ban{}
	for _, b := range n.node.Bans() {
		bans = append(bans, control.Ban{Peer: b.Peer.String(), Until: b.Until})
	}
	return bans, nil
}

// explained adds to an error what its reader may do.
func explained(err error) error {
	hint := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, p2p.ErrBanned):
		hint = "p2pctl peers unban lets it in again"
	case errors.Is(err, p2p.ErrNotMember):
		hint = "see p2p.allow and p2p.allow_file"
	case errors.Is(err, swarm.ErrNoAddresses):
		hint = "name its address as well: /ip4/192.0.2.1/tcp/8461/p2p/PEER-ID"
	default:
		hint = "see that it runs, and that its port can be reached from here"
	}
	return &control.Error{Status: http.StatusConflict, Message: err.Error(), Hint: hint}
}
