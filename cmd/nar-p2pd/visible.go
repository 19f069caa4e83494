package main

import (
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// visible says in a few sentences what others can see of a node.
func visible(cfg *config.Config) (first, second string) {
	first, second = visibleToPeers(cfg)
	if len(cfg.RoutingEndpoints) > 0 {
		second += " The operators of routing_endpoints can see which packages this address looks for."
	}
	return first, second
}

func visibleToPeers(cfg *config.Config) (first, second string) {
	private := cfg.Network != config.PublicNetwork
	switch {
	case cfg.Profile == config.ProfileOff:
		return "No peer is contacted: only the upstreams see what is fetched.",
			"Nothing is shared."
	case cfg.Role == config.RoleInfrastructure:
		return fmt.Sprintf("Whoever is in the %s network can see that this address helps its nodes to find and reach each other.", cfg.Network),
			"It has no store, so nothing is shared."
	case cfg.Profile == config.ProfileConsume:
		return fmt.Sprintf("Whoever is asked in the %s network sees this address and which packages it looks for.", cfg.Network),
			"Nothing is shared or announced."
	case cfg.Profile == config.ProfileLAN:
		return "Machines on the local network can see which packages " + signed(cfg) + " this one holds and looks for.",
			"Nothing is asked or announced beyond the local network."
	case private && (len(cfg.P2P.Allow) > 0 || cfg.P2P.AllowFile != ""):
		return fmt.Sprintf("The peers of %s can see which packages %s this address holds and looks for.", allowed(&cfg.P2P), signed(cfg)),
			"Nobody else in network " + cfg.Network + " is answered."
	case private && cfg.P2P.PSKFile != "":
		return fmt.Sprintf("Whoever has the key of network %s can see which packages %s this address holds and looks for.", cfg.Network, signed(cfg)),
			"To answer some of them only, list these in p2p.allow."
	case private:
		return fmt.Sprintf("Whoever knows the name of network %s can see which packages %s this address holds and looks for.", cfg.Network, signed(cfg)),
			"To answer your own peers only, list them in p2p.allow."
	default:
		return "Strangers can see that this address holds, and looks for, public packages: those " + signed(cfg) + ".",
			"Unsigned and locally built paths never leave this machine. To share nothing: --profile=consume."
	}
}

// allowed says where the allow-list is.
func allowed(cfg *config.P2P) string {
	switch {
	case cfg.AllowFile == "":
		return "p2p.allow"
	case len(cfg.Allow) == 0:
		return cfg.AllowFile
	default:
		return "p2p.allow and of " + cfg.AllowFile
	}
}

// signed names the keys whose paths are shared.
func signed(cfg *config.Config) string {
	names := make([]string, len(cfg.Share.PublicKeys))
	for i, key := range cfg.Share.PublicKeys {
		names[i], _, _ = strings.Cut(key, ":")
	}
	if len(names) == 0 {
		return "signed by nobody"
	}
	return "signed by " + strings.Join(names, " or ")
}

// welcome tells the owner at the first start, and when the answer has changed,
// what others can see and how Nix is to be told of the node.
func (d *daemon) welcome() error {
	bucket, key := d.db.Bucket("daemon"), []byte("welcome")
	first, second := visible(d.settings.current())
	told, err := bucket.Get(key)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	if string(told) == first {
		return nil
	}
	d.log.Info(first)
	d.log.Info(second)
	d.log.Info("for nix.conf", zap.String("substituters", d.nixSubstituters()))
	return bucket.Put(key, []byte(first), 0)
}
