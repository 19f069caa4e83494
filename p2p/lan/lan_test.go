package lan

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	alice = "12D3KooWEZUH3y9GpiWND9UR4VyudR43fPUrw3hjJci1t8jNJK7q"
	bob   = "12D3KooWSWeSrSPHuH8USta26GcetxYjSjxqzRdavTSMbsHn2H9Y"
)

func TestParse(t *testing.T) {
	many := make([]string, 0, 100)
	for i := range 100 {
		many = append(many, fmt.Sprintf("dnsaddr=/ip4/192.168.1.%d/tcp/8461/p2p/%s", i, alice))
	}
	for _, tt := range []struct {
		name  string
		texts []string
		// want is the number of addresses by peer.
		want map[string]int
	}{
		{"none", nil, map[string]int{}},
		{"one", []string{"dnsaddr=/ip4/192.168.1.2/tcp/8461/p2p/" + alice}, map[string]int{alice: 1}},
		{"two addresses", []string{
			"dnsaddr=/ip4/192.168.1.2/tcp/8461/p2p/" + alice, "dnsaddr=/ip4/192.168.1.2/udp/8461/quic-v1/p2p/" + alice,
		}, map[string]int{alice: 2}},
		{"two peers", []string{
			"dnsaddr=/ip4/192.168.1.2/tcp/8461/p2p/" + alice, "dnsaddr=/ip4/192.168.1.3/tcp/8461/p2p/" + bob,
		}, map[string]int{alice: 1, bob: 1}},
		{"garbage beside", []string{
			"", "dnsaddr=", "dnsaddr=/", "dnsaddr=/ip4/999.1.1.1/tcp/1/p2p/" + alice, "txtvers=1", "dnsaddr=/ip4/192.168.1.2/tcp/1",
			strings.Repeat("x", 255), "dnsaddr=/p2p/x", "dnsaddr=/ip4/192.168.1.2/tcp/8461/p2p/" + alice,
		}, map[string]int{alice: 1}},
		{"many", many, map[string]int{alice: maxAddrs}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(map[string]int)
			for _, info := range parse(tt.texts) {
				got[info.ID.String()] = len(info.Addrs)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("parse() (-want +got)\n%s", diff)
			}
		})
	}
}

// A machine with many addresses must not make packets that are too long.
func TestAnnouncementFitsIntoOnePacket(t *testing.T) {
	id, err := peer.Decode(alice)
	if err != nil {
		t.Fatal(err)
	}
	c := &Config{Peer: id, Addrs: func() (addrs []ma.Multiaddr) {
		for i := range 100 {
			addrs = append(addrs, ma.StringCast(fmt.Sprintf("/ip4/192.168.1.%d/tcp/8461", i)),
				ma.StringCast(fmt.Sprintf("/ip6/fd00::%x/udp/8461/quic-v1", i)))
		}
		return addrs
	}}
	ips, texts := c.announcement()
	if diff := cmp.Diff([]string{"192.168.1.0", "fd00::"}, ips); diff != "" {
		t.Errorf("IPs (-want +got)\n%s", diff)
	}
	if n := len(strings.Join(texts, "")); len(texts) == 0 || len(texts) > maxAddrs || n > maxText {
		t.Errorf("%d texts of %d bytes", len(texts), n)
	}
	// What is announced can be read.
	infos := parse(texts)
	if len(infos) != 1 || infos[0].ID != id || len(infos[0].Addrs) != len(texts) {
		t.Errorf("parse() = %v", infos)
	}
	if ips, texts := (&Config{Addrs: func() []ma.Multiaddr { return nil }}).announcement(); len(ips)+len(texts) != 0 {
		t.Errorf("without addresses: %v, %v", ips, texts)
	}
}

// What is not to be used is watched all the same: a change there may matter.
func TestInterfacesThatAreNotToBeUsed(t *testing.T) {
	all, none := interfaces(nil), interfaces(func(*net.Interface) bool { return false })
	if len(none.multicast) > 0 || none.text != all.text {
		t.Errorf("%d interfaces are used: %q", len(none.multicast), none.text)
	}
}
