package swarm

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
)

func TestVotesOfAddressGroups(t *testing.T) {
	tests := []struct {
		name  string
		addrs []string
		want  bool
	}{
		{name: "nobody"},
		{name: "one /24", addrs: []string{"/ip4/11.0.0.1/tcp/1", "/ip4/11.0.0.200/tcp/1"}},
		{name: "two /24", addrs: []string{"/ip4/11.0.0.1/tcp/1", "/ip4/11.0.1.1/udp/1/quic-v1"}, want: true},
		{name: "one /48", addrs: []string{"/ip6/2a00:1:1:1::1/tcp/1", "/ip6/2a00:1:1:2::1/tcp/1"}},
		{name: "two /48", addrs: []string{"/ip6/2a00:1:1::1/tcp/1", "/ip6/2a00:1:2::1/tcp/1"}, want: true},
		{name: "mapped", addrs: []string{"/ip4/11.0.0.1/tcp/1", "/ip6/::ffff:11.0.0.2/tcp/1"}},
		// Any cheap server has one address of each kind.
		{name: "one /24 and one /48", addrs: []string{"/ip4/11.0.0.1/tcp/1", "/ip6/2a00:1:1::1/tcp/1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := newVotes()
			for _, addr := range tt.addrs {
				v.add(chunk.Root{1}, ma.StringCast(addr), false)
			}
			if got := v.weight(chunk.Root{1}).enough(); got != tt.want {
				t.Errorf("enough() = %t, want %t", got, tt.want)
			}
		})
	}
}
