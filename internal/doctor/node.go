package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// settling is how long a node may take after its start to find its place.
const settling = 2 * time.Minute

func (x *examination) store(context.Context) []Check {
	const name = "store"
	s := x.status.Store
	switch {
	case !x.up:
		return nil
	case x.status.Role == "infrastructure":
		return []Check{skipped(name, "infrastructure has none")}
	case s.Kind == "none":
		return []Check{warning(name, "see store.kind in docs/configuration.md", "there is none: nothing is shared")}
	case s.Problem != "":
		return []Check{warning(name, "see that "+s.Location+" is there, and that nothing has its database locked",
			"%s at %s cannot be read: %s", s.Kind, s.Location, s.Problem)}
	case len(s.Damaged) > 0:
		return []Check{warning(name, fmt.Sprintf("nix-store --repair-path %s, then p2pctl provide %[1]s", s.Damaged[0]),
			"files of %d paths are gone, changed or cannot be read: %s", len(s.Damaged), strings.Join(s.Damaged, ", "))}
	case x.status.Profile == "off" || x.status.Profile == "consume":
		return []Check{ok(name, "%s at %s; profile %s shares nothing", s.Kind, s.Location, x.status.Profile)}
	case s.Shareable == 0:
		return []Check{warning(name, "p2pctl explain PATH says why a path is not shared", "%s at %s has no path to share", s.Kind, s.Location)}
	default:
		return []Check{ok(name, "%s at %s, %d paths to share", s.Kind, s.Location, s.Shareable)}
	}
}

// upstreams asks those that the node has not asked yet.
func (x *examination) upstreams(ctx context.Context) []Check {
	const name = "upstreams"
	if !x.up {
		return nil
	}
	var down []string
	for _, u := range x.status.Upstreams {
		if u.State == "unknown" && !u.Private {
			if _, err := x.date(ctx, cacheInfo(u.URL)); err != nil {
				u.Reachable, u.Problem = false, err.Error()
			}
		}
		if !u.Reachable {
			down = append(down, fmt.Sprintf("%s (%s)", u.URL, u.Problem))
		}
	}
	all := len(x.status.Upstreams)
	const remedy = "see whether this machine reaches them, e.g. with curl; nar-p2pd tries again by itself"
	switch {
	case all == 0:
		return []Check{warning(name, "set [[upstream]], so that what no peer has can be fetched", "there is none")}
	case len(down) == all:
		return []Check{warning(name, remedy, "none answers, so everything must come from peers: %s", strings.Join(down, ", "))}
	case len(down) > 0:
		return []Check{warning(name, remedy, "%d of %d do not answer: %s", len(down), all, strings.Join(down, ", "))}
	default:
		return []Check{ok(name, "%d answer, or are private and were not asked yet", all)}
	}
}

// network checks how the node stands among its peers.
func (x *examination) network(ctx context.Context) []Check {
	switch {
	case !x.up:
		return nil
	case x.status.P2P == nil:
		return []Check{skipped("peers", "profile %s has none", x.status.Profile)}
	}
	checks := x.peers(ctx)
	if x.status.Profile == "lan" {
		return append(checks, skipped("dht", "profile lan has none"))
	}
	return append(checks, x.dht(), x.reachability(), x.nat(), x.relay())
}

func (x *examination) young() bool { return time.Since(x.status.Started) < settling }

func (x *examination) peers(ctx context.Context) []Check {
	peers, err := x.patient.Node.Peers(ctx)
	if err != nil {
		return []Check{warning("peers", "", "cannot be listed: %v", err)}
	}
	speak, lan := 0, 0
	for _, p := range peers {
		if p.Exchange {
			speak++
		}
		if p.Exchange && p.LAN {
			lan++
		}
	}
	connected := ok("peers", "%d connected, of which %d run nar-p2p", len(peers), speak)
	if len(peers) == 0 {
		remedy := "see that UDP and TCP go out; in a network of your own, that p2p.bootstrap names a node that runs"
		if x.young() {
			remedy = "wait a moment: nar-p2pd was only just started"
		}
		connected = warning("peers", remedy, "none is connected")
	}
	local := skipped("lan-peers", "none runs nar-p2p on the local network")
	if lan > 0 {
		local = ok("lan-peers", "%d on the local network", lan)
	}
	return []Check{connected, local}
}

func (x *examination) dht() Check {
	const name = "dht"
	p := x.status.P2P
	switch {
	case p.Routing == "none":
		return skipped(name, "not part of one: see routing in the configuration")
	case p.RoutingPeers == 0 && x.young():
		return warning(name, "wait a moment: nar-p2pd was only just started", "no node of it is known yet")
	case p.RoutingPeers == 0:
		return warning(name, "see that UDP and TCP go out, and what p2p.bootstrap names", "no node of it is known")
	default:
		return ok(name, "%s, %d nodes known", p.Routing, p.RoutingPeers)
	}
}

func (x *examination) reachability() Check {
	const name = "reachability"
	reach := x.status.P2P.Reach
	switch {
	case reach.State == "unreachable":
		return warning(name, reach.Remedy, "%s", reach.Why)
	case reach.State == "unknown" && x.young():
		return skipped(name, "not known yet: it takes a minute or two after the start")
	case reach.State == "unknown":
		return warning(name, "it needs peers who tell; see peers and dht", "%s", reach.Why)
	default:
		return ok(name, "%s", reach.Why)
	}
}

// nat is about the router, where there is one between the node and the others.
func (x *examination) nat() Check {
	const name = "nat"
	switch reach := x.status.P2P.Reach; {
	case reach.State == "local":
		return skipped(name, "does not matter: nobody from afar is to reach this node")
	case reach.NAT == "any port" && reach.State != "reachable":
		return warning(name, "switch on port mapping (UPnP or NAT-PMP) in the router, or forward a port: docs/nat.md",
			"each peer sees this node at another port, so that holes can hardly be punched")
	case reach.NAT == "same port":
		return ok(name, "all peers see this node at the same port, so that direct connections can be made")
	case reach.State == "reachable":
		return ok(name, "none is in the way")
	default:
		return skipped(name, "not known: it takes some peers from afar and a few minutes to tell")
	}
}

// relay is about who leads others to a node that they cannot reach by themselves.
func (x *examination) relay() Check {
	const name = "relay"
	switch reach := x.status.P2P.Reach; {
	case len(reach.Relays) > 0:
		return ok(name, "%d lead to this node", len(reach.Relays))
	case reach.State == "reachable":
		return ok(name, "none is needed")
	case reach.State == "unreachable":
		return warning(name, reach.Remedy, "none has taken a reservation of this node")
	default:
		return skipped(name, "none is needed, as far as is known yet")
	}
}
