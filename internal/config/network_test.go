package config_test

import (
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/internal/config"
)

func TestInfrastructureHasNoStore(t *testing.T) {
	got, err := load(t, "", nil, []string{"--role=infrastructure"})
	if err != nil || got.Store.Kind != config.StoreNone {
		t.Errorf("Load() = store.kind %v, %v, want %q", got.Store.Kind, err, config.StoreNone)
	}
}

// TestNetworkErrors is TestErrors for what has to do with the network, and for
// settings that contradict each other.
func TestNetworkErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"role":                          {args: []string{"--role=server"}, want: `--role: "server": is not one of node, infrastructure`},
		"infrastructure, fetching only": {args: []string{"--role=infrastructure", "--profile=consume"}, want: `role: "infrastructure" serves a whole network, and profile is "consume"`},
		"infrastructure with a store":   {args: []string{"--role=infrastructure", "--store-kind=nix"}, want: `role: "infrastructure" has no store`},
		"infrastructure with a cache":   {args: []string{"--role=infrastructure", "--store-cache=/c"}, want: `role: "infrastructure" has no store`},
		"infrastructure without a DHT":  {args: []string{"--role=infrastructure", "--routing=both", "--routing-endpoints=http://a.example"}, want: `routing: is "both", but role "infrastructure"`},
		"key of the public network":     {args: []string{"--p2p-psk-file=/k"}, want: `p2p.psk_file: the public network has no key`},
		"endpoints for nothing":         {args: []string{"--routing-endpoints=http://a.example"}, want: `routing_endpoints: are set, but routing is "dht"`},
		"no endpoints":                  {args: []string{"--routing=delegated"}, want: `routing: "delegated" needs routing_endpoints`},
		"endpoints on the LAN alone":    {args: []string{"--profile=lan", "--routing=both", "--routing-endpoints=http://a.example"}, want: `routing: is "both", but profile "lan"`},
		"endpoint with a path":          {args: []string{"--routing=both", "--routing-endpoints=http://a.example/x"}, want: `--routing-endpoints: "http://a.example/x": has the path /x`},
		"endpoint with a query":         {args: []string{"--routing=both", "--routing-endpoints=http://a.example?x"}, want: `has a query`},
		"serving without a DHT":         {args: []string{"--profile=lan", "--serve-routing=127.0.0.1:1"}, want: `serve_routing: answers from the DHT, in which this node takes no part`},
		"relaying data as a node":       {args: []string{"--network=n", "--relay-data=true"}, want: `relay.data: only a node with role "infrastructure"`},
		"relaying data for everybody":   {args: []string{"--role=infrastructure", "--relay-data=true"}, want: `relay.data: in the public network anybody`},
		"relaying too little":           {args: []string{"--network=n", "--role=infrastructure", "--relay-data=true", "--relay-volume=1MiB"}, want: `relay.volume: 1048576 bytes are too few`},
		"serving where":                 {args: []string{"--serve-routing=8462"}, want: `--serve-routing: "8462": is not HOST:PORT`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := load(t, "", nil, tt.args)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load() = %v, %v, want an error with %q", got, err, tt.want)
			}
		})
	}
}
