package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/host"
)

// NewPeer makes a node of the network "lab", with an identity of its own and its state
// in memory. cfg says the rest; a nil shelf shares nothing.
func NewPeer(cfg p2p.Config, shelf p2p.Shelf) (*p2p.Node, error) {
	identity, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	store := dssync.MutexWrap(ds.NewMapDatastore())
	cfg.Network, cfg.Identity = "lab", identity
	cfg.Datastore = func(name string) ds.Batching { return namespace.Wrap(store, ds.NewKey(name)) }
	if shelf == nil {
		shelf = emptyShelf{}
	}
	return p2p.New(cfg, shelf, zap.NewNop())
}

// Peer runs a node of the network "lab" inside the test, with a shelf of the
// test's own: one that lies, for instance. Without a bootstrap it knows nobody.
func (l *Lab) Peer(bootstrap *Daemon, shelf p2p.Shelf) *p2p.Node {
	l.t.Helper()
	known := []peer.AddrInfo{}
	if bootstrap != nil {
		known = append(known, bootstrap.AddrInfo())
	}
	node, err := NewPeer(p2p.Config{
		Profile:   p2p.Private,
		Listen:    []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
		Bootstrap: known,
	}, shelf)
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			l.t.Logf("lab: peer ended: %v", err)
		}
	})
	select {
	case <-node.Ready():
	case err := <-ended:
		l.t.Fatalf("lab: peer: %v", err)
	}
	return node
}

// Identity makes the identity of a daemon that is yet to start, and returns its
// peer ID.
func (l *Lab) Identity(name string) string {
	l.t.Helper()
	key, err := host.LoadOrCreateIdentity(filepath.Join(l.Dir("daemon-"+name+"/state"), "identity"))
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	return id.String()
}

// AddrInfo returns the daemon's peer ID and addresses.
func (d *Daemon) AddrInfo() peer.AddrInfo {
	d.lab.t.Helper()
	addrs := make([]ma.Multiaddr, 0, len(d.Addrs()))
	for _, text := range d.Addrs() {
		addr, err := ma.NewMultiaddr(text)
		if err != nil {
			d.lab.t.Fatalf("lab: %v", err)
		}
		addrs = append(addrs, addr)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		d.lab.t.Fatalf("lab: %v", err)
	}
	return infos[0]
}
