package main

import (
	"testing"

	"github.com/nar-p2p/nar-p2p/internal/config"
)

func TestVisible(t *testing.T) {
	tests := map[string]struct {
		cfg           config.Config
		first, second string
	}{
		"off": {
			config.Config{Profile: config.ProfileOff, Network: "public"},
			"No peer is contacted: only the upstreams see what is fetched.", "Nothing is shared.",
		},
		"consume": {
			config.Config{Profile: config.ProfileConsume, Network: "public"},
			"Whoever is asked in the public network sees this address and which packages it looks for.", "Nothing is shared or announced.",
		},
		"lan without keys": {
			config.Config{Profile: config.ProfileLAN, Network: "public"},
			"Machines on the local network can see which packages signed by nobody this one holds and looks for.",
			"Nothing is asked or announced beyond the local network.",
		},
		"private, open": {
			config.Config{Profile: config.ProfilePrivate, Network: "team", Share: config.Share{PublicKeys: []string{"team-1:abc"}}},
			"Whoever knows the name of network team can see which packages signed by team-1 this address holds and looks for.",
			"To answer your own peers only, list them in p2p.allow.",
		},
		"private, closed": {
			config.Config{
				Profile: config.ProfilePrivate, Network: "team",
				P2P: config.P2P{Allow: []string{"a", "b"}}, Share: config.Share{PublicKeys: []string{"team-1:abc", "cache-1:def"}},
			},
			"The peers of p2p.allow can see which packages signed by team-1 or cache-1 this address holds and looks for.",
			"Nobody else in network team is answered.",
		},
		"private, closed by a file": {
			config.Config{
				Profile: config.ProfilePrivate, Network: "team",
				P2P: config.P2P{AllowFile: "/etc/allow", PSKFile: "/etc/psk"}, Share: config.Share{PublicKeys: []string{"team-1:abc"}},
			},
			"The peers of /etc/allow can see which packages signed by team-1 this address holds and looks for.",
			"Nobody else in network team is answered.",
		},
		"private, with a key": {
			config.Config{
				Profile: config.ProfilePrivate, Network: "team",
				P2P: config.P2P{PSKFile: "/etc/psk"}, Share: config.Share{PublicKeys: []string{"team-1:abc"}},
			},
			"Whoever has the key of network team can see which packages signed by team-1 this address holds and looks for.",
			"To answer some of them only, list these in p2p.allow.",
		},
		"infrastructure": {
			config.Config{Profile: config.ProfilePrivate, Network: "team", Role: config.RoleInfrastructure},
			"Whoever is in the team network can see that this address helps its nodes to find and reach each other.",
			"It has no store, so nothing is shared.",
		},
		"consume, delegated": {
			config.Config{Profile: config.ProfileConsume, Network: "public", RoutingEndpoints: []string{"https://r.example"}},
			"Whoever is asked in the public network sees this address and which packages it looks for.",
			"Nothing is shared or announced. The operators of routing_endpoints can see which packages this address looks for.",
		},
		"public": {
			config.Config{Profile: config.ProfilePublic, Network: "public", Share: config.Share{PublicKeys: []string{config.CacheNixOSKey}}},
			"Strangers can see that this address holds, and looks for, public packages: those signed by cache.nixos.org-1.",
			"Unsigned and locally built paths never leave this machine. To share nothing: --profile=consume.",
		},
	}
	for name, tt := range tests {
		if first, second := visible(&tt.cfg); first != tt.first || second != tt.second {
			t.Errorf("%s: visible() = %q, %q", name, first, second)
		}
	}
}
