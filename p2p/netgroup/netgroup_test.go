package netgroup_test

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/p2p/netgroup"
)

func TestGroups(t *testing.T) {
	for _, tt := range []struct {
		addr    string
		of, far string // "" for none
	}{
		{"/ip4/11.0.1.2/tcp/1", "11.0.1.0/24", "11.0.1.0/24"},
		{"/ip4/11.0.1.2/udp/1/quic-v1", "11.0.1.0/24", "11.0.1.0/24"},
		{"/ip6/2a00:1:2:3::4/tcp/1", "2a00:1:2::/48", "2a00:1:2::/48"},
		{"/ip6/::ffff:11.0.1.2/tcp/1", "11.0.1.0/24", "11.0.1.0/24"},
		{"/ip4/192.168.1.2/tcp/1", "192.168.1.0/24", ""},
		{"/ip4/127.0.0.1/tcp/1", "127.0.0.0/24", ""},
		{"/dns4/example.org/tcp/1", "", ""},
	} {
		addr := ma.StringCast(tt.addr)
		of, far := "", ""
		if g, ok := netgroup.Of(addr); ok {
			of = g.String()
		}
		if g, ok := netgroup.Far(addr); ok {
			far = g.String()
		}
		if of != tt.of || far != tt.far {
			t.Errorf("%s: Of = %q, Far = %q; want %q, %q", tt.addr, of, far, tt.of, tt.far)
		}
	}
}
