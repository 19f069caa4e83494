package host

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
)

// maxRelayCandidates bounds how many candidates AutoRelay gets at once.
const maxRelayCandidates = 32

// relayResources are a relay's limits. Reservations are for whole offices
// behind one address; what goes through is for hole punching and small
// requests, so data and time keep libp2p's low limits (128 KiB, 2 minutes).
func relayResources() relay.Resources {
	r := relay.DefaultResources()
	r.MaxReservations = 1_024
	r.MaxReservationsPerIP = 256
	r.MaxReservationsPerASN = 1_024
	return r
}

// relayCandidates adapts a function that knows peers to AutoRelay.
func relayCandidates(source func(num int) []peer.AddrInfo) autorelay.PeerSource {
	return func(_ context.Context, num int) <-chan peer.AddrInfo {
		num = min(num, maxRelayCandidates)
		found := make(chan peer.AddrInfo, num)
		defer close(found)
		for i, info := range source(num) {
			if i == num {
				break
			}
			found <- info
		}
		return found
	}
}
