package p2p

import (
	"cmp"
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

// maxMeetings is how many meetings wait for who follows them; libp2p waits for
// whoever falls behind.
const maxMeetings = 256

// FollowPeers calls f, which is to be quick, for each peer that is met, once it is
// known what it speaks, and again when it has gone, until ctx ends.
func (n *Node) FollowPeers(ctx context.Context, f func(p PeerStatus, connected bool)) error {
	select {
	case <-n.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	l := n.live.Load()
	if l == nil {
		return cmp.Or(ctx.Err(), ErrNotRunning)
	}
	sub, err := l.host.EventBus().Subscribe(
		[]any{new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerConnectednessChanged)}, eventbus.BufSize(maxMeetings))
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	defer sub.Close()
	met := make(map[peer.ID]PeerStatus)
	for {
		select {
		case e, ok := <-sub.Out():
			if !ok { // the host has closed
				return cmp.Or(ctx.Err(), ErrNotRunning)
			}
			l.noteMeeting(e, met, f)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// noteMeeting draws the conclusions from one event; met are the peers that f knows of.
func (l *live) noteMeeting(e any, met map[peer.ID]PeerStatus, f func(PeerStatus, bool)) {
	switch e := e.(type) {
	case event.EvtPeerIdentificationCompleted:
		_, known := met[e.Peer]
		if known || l.host.Network().Connectedness(e.Peer) == network.NotConnected {
			return
		}
		met[e.Peer] = l.peer(e.Peer)
		f(met[e.Peer], true)
	case event.EvtPeerConnectednessChanged:
		gone, known := met[e.Peer]
		if e.Connectedness == network.NotConnected && known {
			delete(met, e.Peer)
			f(gone, false)
		}
	}
}
