package main

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
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

const (
	// benchTime bounds what is fetched to measure a peer.
	benchTime = 10 * time.Second
	// benchNARs is how many NARs of this node's own the peer is asked about, at most.
	benchNARs = 3000
)

// Bench implements control.Contacts.
func (n node) Bench(ctx context.Context, p peer.ID, size int64) (*control.Bench, error) {
	if n.node == nil {
		return nil, errNoPeers
	}
	m := p2p.Measurement{Bytes: size, Time: benchTime, Line: n.downloads.Line()}
	// What this node shares itself is no secret.
	for _, key := range n.catalog.Largest(benchNARs) {
		m.NARs = append(m.NARs, p2p.MeasuredNAR{Hash: key.NARHash, Size: key.NARSize})
	}
	if len(m.NARs) == 0 {
		return nil, &control.Error{
			Status: http.StatusConflict, Message: "this node has nothing to measure with",
			Hint: "a peer is asked for what this node shares itself, and may thus be known to look for: it needs a store, and a profile that shares",
		}
	}
	got, err := n.node.Bench(ctx, p, m)
	if err != nil {
		return nil, explained(err)
	}
	told := &control.Bench{
		Peer: p.String(), NARHash: got.NAR.Hash.String(), Via: string(got.Path), RTTSeconds: got.RTT.Seconds(),
		FirstByteSeconds: got.FirstByte.Seconds(), Seconds: got.Took.Seconds(), Bytes: got.Bytes,
		BytesPerSecond: math.Round(float64(got.Bytes) / max(got.Took.Seconds(), 1e-9)), DownloadLimit: n.downloads.PerSecond(),
	}
	if got.LAN {
		told.Via = "lan"
	}
	return told, nil
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
	case errors.Is(err, p2p.ErrNothingInCommon):
		hint = "it is asked for what this node shares itself"
	case errors.Is(err, p2p.ErrMeasuring), isBusy(err):
		hint = "try again later"
	case errors.Is(err, exchange.ErrNoPath):
		hint = "see docs/nat.md for what stands in the way"
	default:
		hint = "see that it runs, and that its port can be reached from here"
	}
	return &control.Error{Status: http.StatusConflict, Message: err.Error(), Hint: hint}
}

// isBusy reports whether a peer has no room.
func isBusy(err error) bool {
	_, busy := errors.AsType[*exchange.BusyError](err)
	return busy
}
