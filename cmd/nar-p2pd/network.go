package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/psk"
	"github.com/nar-p2p/nar-p2p/internal/version"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
	"github.com/nar-p2p/nar-p2p/narstore/state"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/delegated"
	"github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/site"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
	"github.com/nar-p2p/nar-p2p/substituter"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// nodeConfig turns the settings into those of a node among peers. The identity
// is made at the first start.
func nodeConfig(cfg *config.Config, db *state.DB, metrics prometheus.Registerer) (*p2p.Config, error) {
	identity, err := host.LoadOrCreateIdentity(filepath.Join(cfg.StateDir, "identity"))
	if err != nil {
		return nil, err
	}
	node := &p2p.Config{
		Profile:        p2p.Profile(cfg.Profile),
		Network:        cfg.Network,
		Identity:       identity,
		Infrastructure: cfg.Role == config.RoleInfrastructure,
		AllowFile:      cfg.P2P.AllowFile,
		Endpoints:      cfg.RoutingEndpoints,
		WithoutDHT:     cfg.Routing == config.RoutingDelegated,
		UploadLimit:    cfg.P2P.UploadLimit,
		Answers:        cfg.ServeRouting != "",
		AnnounceBudget: cfg.Share.AnnounceBudget,
		Datastore:      db.Datastore,
		UserAgent:      "nar-p2p/" + version.String(),
		Registerer:     metrics,
	}
	for _, i := range cfg.Interfaces {
		node.Sites = append(node.Sites, site.Rule{Match: i.Match, Ban: site.Ban{LAN: !i.LAN, MDNS: !i.MDNS, Share: !i.Share}})
	}
	if cfg.Relay.Data {
		node.DataRelay = &host.DataRelay{Rate: cfg.Relay.Rate, Volume: cfg.Relay.Volume}
	}
	for _, text := range cfg.P2P.Listen {
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("p2p.listen: %w", err)
		}
		node.Listen = append(node.Listen, addr)
	}
	if node.Bootstrap, err = addrInfos(cfg.P2P.Bootstrap); err != nil {
		return nil, fmt.Errorf("p2p.bootstrap: %w", err)
	}
	if node.Peers, err = addrInfos(cfg.P2P.Peers); err != nil {
		return nil, fmt.Errorf("p2p.peers: %w", err)
	}
	for _, text := range cfg.P2P.Allow {
		id, err := peer.Decode(text)
		if err != nil {
			return nil, fmt.Errorf("p2p.allow: %q: %w", text, err)
		}
		node.Allow = append(node.Allow, id)
	}
	if cfg.P2P.PSKFile != "" {
		if node.PSK, err = psk.Load(cfg.P2P.PSKFile); err != nil {
			return nil, fmt.Errorf("p2p.psk_file: %w", err)
		}
	}
	return node, nil
}

// routingServer answers, over HTTP, who provides what in the node's network.
func routingServer(cfg *config.Config, node *p2p.Node, metrics prometheus.Registerer, log *zap.Logger) *http.Server {
	serverCfg := &delegated.ServerConfig{Registerer: metrics}
	if cfg.Network != config.PublicNetwork {
		serverCfg.Network = cfg.Network
	}
	return delegated.NewHTTPServer(delegated.NewHandler(node, serverCfg), log)
}

// addrInfos groups addresses by peer. Nil stays nil.
func addrInfos(texts []string) ([]peer.AddrInfo, error) {
	if texts == nil {
		return nil, nil
	}
	addrs := make([]multiaddr.Multiaddr, len(texts))
	for i, text := range texts {
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return nil, err
		}
		addrs[i] = addr
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if infos == nil {
		infos = []peer.AddrInfo{}
	}
	return infos, err
}

func substituterConfig(cfg *config.Config) (*substituter.Config, error) {
	trusted, err := publicKeys(cfg.Trust.PublicKeys)
	if err != nil {
		return nil, fmt.Errorf("trust.public_keys: %w", err)
	}
	spool, err := makeDir(cfg.StateDir, "spool")
	if err != nil {
		return nil, err
	}
	s := &substituter.Config{
		Priority:   cfg.Substituter.Priority,
		Deadline:   cfg.Substituter.Deadline,
		MaxRecords: cfg.Substituter.MaxRecords,
		NoPrefetch: !cfg.Substituter.Prefetch,
		RacePeers:  cfg.Substituter.RacePeers,
		Trust:      trust.Keys{Trusted: trusted, Threshold: cfg.Trust.Threshold},
		Hosts:      cfg.Substituter.Hosts,
		SpoolDir:   spool,
	}
	for _, u := range cfg.Upstreams {
		keys, err := publicKeys(u.PublicKeys)
		if err != nil {
			return nil, fmt.Errorf("upstream: public_keys: %w", err)
		}
		s.Upstreams = append(s.Upstreams, upstream.Config{
			URL: u.URL, Priority: u.Priority, Keys: keys, Private: u.Private,
			Netrc: u.Netrc, TokenFile: u.TokenFile, Include: u.Include, Exclude: u.Exclude,
		})
	}
	return s, nil
}

// peers is a node as the substituter sees it.
type peers struct {
	*p2p.Node
	profile config.Profile
	public  bool         // the network has strangers
	reuse   *reuse.Index // nil where nothing is taken from the store
}

var (
	_ substituter.Peers     = peers{}
	_ substituter.Estimator = peers{}
	_ substituter.Saver     = peers{}
	_ substituter.Glancer   = peers{}
	_ substituter.Reuser    = transfer{}
)

// Estimate implements substituter.Estimator.
func (p peers) Estimate(hash nix.NARHash) substituter.Estimate {
	return substituter.Estimate(p.Node.Estimate(hash))
}

// Saving implements substituter.Saver.
func (p peers) Saving(path nix.StorePath, hash nix.NARHash, size int64) float64 {
	if p.reuse == nil {
		return 0
	}
	return p.reuse.Expect(path, hash, size)
}

// Open implements substituter.Peers.
func (p peers) Open(ctx context.Context, want substituter.Want) (substituter.Transfer, error) {
	t, err := p.Node.Open(ctx, swarm.Want(want))
	if err != nil {
		return nil, err
	}
	return transfer{t}, nil
}

// transfer is a swarm's transfer as the substituter sees it.
type transfer struct{ *swarm.Transfer }

// Sources implements substituter.Transfer.
func (t transfer) Sources() []substituter.Source { return sources(t.Transfer.Sources()) }

// Handed implements substituter.Transfer.
func (t transfer) Handed() []substituter.Source { return sources(t.Transfer.Handed()) }

func sources(sources []swarm.Source) []substituter.Source {
	converted := make([]substituter.Source, len(sources))
	for i, s := range sources {
		converted[i] = substituter.Source(s)
	}
	return converted
}
