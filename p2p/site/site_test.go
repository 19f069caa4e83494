package site_test

import (
	"net"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/p2p/site"
)

func rules(t *testing.T, given ...site.Rule) *site.Rules {
	t.Helper()
	r, err := site.New(given)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var everything = site.Ban{LAN: true, MDNS: true, Share: true}

// The loopback interface has a network of addresses, and stands for several
// places.
func TestPlaces(t *testing.T) {
	r := rules(t,
		site.Rule{Match: []string{"127.0.1.0/24"}},
		site.Rule{Match: []string{"127.0.2.0/24", "wl*"}, Ban: site.Ban{Share: true}},
		site.Rule{Match: []string{"127.0.0.0/16", "*"}, Ban: site.Ban{LAN: true}},
	)
	for _, tt := range []struct {
		local, remote string
		want          site.Ban
	}{
		{"/ip4/127.0.1.1/tcp/1", "/ip4/127.0.1.2/tcp/2", site.Ban{LAN: true}}, // the kernel sends from 127.0.0.1
		{"/ip4/127.0.2.1/tcp/1", "/ip4/127.0.2.2/tcp/2", site.Ban{LAN: true, Share: true}},
		{"/ip4/0.0.0.0/udp/1", "/ip4/127.0.9.9/udp/2", site.Ban{LAN: true}},
		{"/ip6/::1/tcp/1", "/ip6/::1/tcp/2", site.Ban{}}, // that "*" is not for this machine itself
		// Nobody knows, so that all counts that any rule bans.
		{"/ip4/192.0.2.77/tcp/1", "/ip6/::1/tcp/2", site.Ban{LAN: true, Share: true}},
		{"/ip4/127.0.1.1/tcp/1", "/dns4/example.org/tcp/2", site.Ban{LAN: true, Share: true}},
	} {
		if got := r.Conn(ma.StringCast(tt.local), ma.StringCast(tt.remote)); got != tt.want {
			t.Errorf("Conn(%s, %s) = %+v, want %+v", tt.local, tt.remote, got, tt.want)
		}
	}
	if got := r.Local(ma.StringCast("/ip4/127.0.1.1/tcp/1")); got != (site.Ban{}) {
		t.Errorf("the first rule that matches does not count: %+v", got)
	}
}

// A relayed peer is where its relay is.
func TestRelays(t *testing.T) {
	const id = "12D3KooWEZUH3y9GpiWND9UR4VyudR43fPUrw3hjJci1t8jNJK7q"
	r := rules(t, site.Rule{Match: []string{"127.0.0.0/8"}, Ban: everything})
	if got := r.Remote(ma.StringCast("/ip4/127.0.0.1/tcp/1/p2p/" + id + "/p2p-circuit")); got != everything {
		t.Errorf("Remote() = %+v", got)
	}
}

func TestInterface(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	byName := rules(t, site.Rule{Match: []string{"*"}, Ban: everything})
	byNetwork := rules(t, site.Rule{Match: []string{"127.0.0.0/8"}, Ban: everything})
	for _, i := range all {
		loopback := i.Flags&net.FlagLoopback != 0
		if got := byName.Interface(&i); (got == everything) == loopback {
			t.Errorf("%s: %+v by name", i.Name, got)
		}
		if got := byNetwork.Interface(&i); (got == everything) != loopback {
			t.Errorf("%s: %+v by network", i.Name, got)
		}
	}
}

func TestWithoutRules(t *testing.T) {
	r := rules(t)
	name, ban := r.Outward()
	if r != nil || name != "" || ban != (site.Ban{}) || r.BansSharing() ||
		r.Conn(ma.StringCast("/ip4/127.0.0.1/tcp/1"), ma.StringCast("/ip4/192.0.2.1/tcp/1")) != (site.Ban{}) {
		t.Error("without rules something is banned")
	}
}

func TestMalformed(t *testing.T) {
	for _, wrong := range []string{"", "[a", "10.0.0.0/33", "a/b", "10.0.0.1/"} {
		if _, err := site.New([]site.Rule{{Match: []string{wrong}}}); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}
