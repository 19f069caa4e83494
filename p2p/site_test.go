package p2p_test

import (
	"bytes"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/site"
)

// at is the node at one of its addresses only.
func (n *node) at(t *testing.T, ip string) []peer.AddrInfo {
	t.Helper()
	for _, addr := range n.Status().Announced {
		if got, err := addr.ValueForProtocol(ma.P_IP4); err == nil && got == ip {
			return []peer.AddrInfo{{ID: n.id, Addrs: []ma.Multiaddr{addr}}}
		}
	}
	t.Fatalf("no address with %s in %v", ip, n.Status().Announced)
	return nil
}

// Who comes by an interface on which nothing is shared gets no answer, and others
// do.
func TestNothingIsSharedOnSomeInterfaces(t *testing.T) {
	held := newShelf(t, 1<<20)
	want := held.one()
	provider := start(t, p2p.Config{
		Profile: p2p.Private, Network: "team",
		Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0"), ma.StringCast("/ip4/127.0.0.2/tcp/0")},
		Sites:  []site.Rule{{Match: []string{"127.0.0.2/32"}, Ban: site.Ban{Share: true}}},
	}, held)
	for ip, shared := range map[string]bool{"127.0.0.1": true, "127.0.0.2": false} {
		other := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Peers: provider.at(t, ip)}, newShelf(t))
		await(t, "a connection", func() bool { return other.connected(provider) })
		if info := other.asks(t, want.StorePath.HashPart(), true); (info != nil) != shared {
			t.Errorf("by %s the narinfo is %v", ip, info)
		}
		got, err := other.fetches(t, want, true)
		if bytes.Equal(got, held.nars[want.NARHash]) != shared {
			t.Errorf("by %s %d bytes of the NAR have come, %v", ip, len(got), err)
		}
	}
}

// Where an interface is not one of the local network, nobody there is a neighbour.
func TestSomeInterfacesAreNoLocalNetwork(t *testing.T) {
	cafe := []site.Rule{{Match: []string{"127.0.0.0/8"}, Ban: site.Ban{LAN: true}}}
	held := newShelf(t, 1<<20)
	for _, tt := range []struct {
		name             string
		provider, client []site.Rule
		served, lan      bool
	}{
		{"at home", nil, nil, true, true},
		{"the provider in a café", cafe, nil, false, true},
		{"the client in a café", nil, cafe, false, false}, // where profile lan asks nobody
	} {
		provider := start(t, p2p.Config{Profile: p2p.LAN, Network: p2p.PublicNetwork, Sites: tt.provider}, held)
		client := start(t, p2p.Config{Profile: p2p.LAN, Network: p2p.PublicNetwork, Sites: tt.client, Bootstrap: infos(provider)}, newShelf(t))
		if err := client.Connect(t.Context(), provider.info()); err != nil {
			t.Fatal(err)
		}
		await(t, "a connection", func() bool {
			return client.sees(provider) != nil && client.sees(provider).Agent == "" || client.connected(provider)
		})
		if got := client.sees(provider); got.LAN != tt.lan {
			t.Errorf("%s: %+v", tt.name, got)
		}
		await(t, "protocols", func() bool { return client.sees(provider).Exchange })
		if info := client.asks(t, held.one().StorePath.HashPart(), true); (info != nil) != tt.served {
			t.Errorf("%s: the narinfo is %v", tt.name, info)
		}
	}
}
