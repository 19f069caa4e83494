package host

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

func TestDialsAreRanked(t *testing.T) {
	const (
		lanTCP  = "/ip4/192.168.1.2/tcp/1"
		lanQUIC = "/ip4/192.168.1.2/udp/1/quic-v1"
		tcp     = "/ip4/11.0.0.1/tcp/1"
		tcp6    = "/ip6/2a00::1/tcp/1"
		nars    = "/ip4/11.0.0.2/tcp/1"
		nars2   = "/ip4/11.0.0.2/udp/1/quic-v1"
		quic    = "/ip4/11.0.0.1/udp/1/quic-v1"
		known   = "/ip4/11.0.0.3/tcp/1"
		known2  = "/ip4/11.0.0.3/udp/1/quic-v1"
		known6  = "/ip6/2a00::3/udp/1/quic-v1"
		relay   = "/ip4/11.0.0.9/udp/1/quic-v1/p2p/12D3KooWM3qHRfmN3PYRVnhFYWhb72iemow2fxVzAvhSNh5Xz7XA/p2p-circuit"
	)
	providers := NewProviders()
	providers.Add([]ma.Multiaddr{ma.StringCast(nars), ma.StringCast(nars2)})
	relays := []peer.AddrInfo{{Addrs: []ma.Multiaddr{ma.StringCast(known), ma.StringCast(known2)}}}
	tests := []struct {
		name    string
		private bool
		public  bool // the node itself
		want    map[string]time.Duration
	}{
		{"local network", false, false, map[string]time.Duration{lanTCP: 0, lanQUIC: lanQUICDelay}},
		{"private network", true, false, map[string]time.Duration{tcp6: 0, tcp: farIP4Delay, quic: farQUICDelay, relay: 500 * time.Millisecond}},
		{"relay of a private network", true, false, map[string]time.Duration{known6: 0, known2: 250 * time.Millisecond, known: 500 * time.Millisecond}},
		{"relay of a private network, for a node that is no better reached through it", true, true, map[string]time.Duration{known6: farQUICDelay, known2: farQUICDelay, known: 0}},
		{"only a relay", true, false, map[string]time.Duration{relay: 0}},
		{"provider in the public network", false, false, map[string]time.Duration{nars: 0, nars2: farQUICDelay}},
		{"public network", false, false, map[string]time.Duration{quic: 0, tcp: 250 * time.Millisecond}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var addrs []ma.Multiaddr
			for addr := range tt.want {
				addrs = append(addrs, ma.StringCast(addr))
			}
			got := make(map[string]time.Duration)
			for _, dial := range dialRanker(tt.private, providers, relays, func() bool { return !tt.public })(addrs) {
				got[dial.Addr.String()] = dial.Delay
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("delays (-want +got)\n%s", diff)
			}
		})
	}
}
