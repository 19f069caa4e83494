package p2p

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"go.uber.org/zap"
)

// sendAway closes connections with nodes of other networks, until ctx ends. They
// understand nothing of each other that is about paths; but libp2p's own services
// would go on to deal with a node that was dialled by mistake, which has no
// business with this network.
func (l *live) sendAway(ctx context.Context) error {
	sub, err := l.host.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.Name("nar-p2p-foreign"), eventbus.BufSize(256))
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	defer sub.Close()
	for _, p := range l.host.Network().Peers() {
		if version, err := l.host.Peerstore().Get(p, "ProtocolVersion"); err == nil && version != any(l.cfg.family()) {
			l.part(p)
		}
	}
	for {
		select {
		case e := <-sub.Out():
			if e, ok := e.(event.EvtPeerIdentificationCompleted); ok && e.ProtocolVersion != l.cfg.family() {
				l.part(e.Peer)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// part closes the connections with a peer of another network.
func (l *live) part(p peer.ID) {
	log := l.log.Debug
	if _, configured := l.configured[p]; configured {
		log = l.log.Warn
	}
	log("disconnecting from a node of another network", zap.Stringer("peer", p))
	l.foreign.Add(1)
	_ = l.host.Network().ClosePeer(p) // An error means that the connection is lost already.
}
