package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// crowdVariable holds a crowd's task, and makes the test program a crowd.
const crowdVariable = "NAR_P2P_CROWD"

// crowd is nodes in one process on one host, which all want the same NAR.
type crowd struct {
	Nodes     int
	Bootstrap peer.AddrInfo
	Hash      nix.NARHash
	Size      int64
}

// told is what a crowd says in the end.
type told struct {
	// Relays is how many nodes have one.
	Relays int
	// Ways counts those that have got the NAR by the way that it took.
	Ways map[string]int
	Errs []string
}

// runCrowd is the test program as a crowd.
func runCrowd(task string) int {
	var c crowd
	if err := json.Unmarshal([]byte(task), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	if err := json.NewEncoder(os.Stdout).Encode(c.run(ctx)); err != nil {
		return 1
	}
	return 0
}

func (c *crowd) run(ctx context.Context) told {
	ctx, cancel := context.WithCancel(ctx)
	t := told{Ways: make(map[string]int)}
	var running errgroup.Group
	nodes := make([]*p2p.Node, c.Nodes)
	for i := range nodes {
		node, err := c.node()
		if err != nil {
			t.Errs = append(t.Errs, err.Error())
			cancel()
			return t
		}
		nodes[i] = node
		running.Go(func() error { return node.Run(ctx) })
	}
	ways := make([]string, c.Nodes)
	errs := make([]error, c.Nodes)
	var fetching errgroup.Group
	for i, node := range nodes {
		fetching.Go(func() error {
			<-node.Ready()
			ways[i], errs[i] = c.fetch(ctx, node)
			return nil
		})
	}
	_ = fetching.Wait() // All errors are in errs.
	for i, node := range nodes {
		if errs[i] != nil {
			t.Errs = append(t.Errs, errs[i].Error())
			continue
		}
		t.Ways[ways[i]]++
		if node.Status().Reach.Reach == p2p.Relayed {
			t.Relays++
		}
	}
	cancel()
	if err := running.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Errs = append(t.Errs, err.Error())
	}
	return t
}

func (c *crowd) node() (*p2p.Node, error) {
	identity, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	store := dssync.MutexWrap(ds.NewMapDatastore())
	return p2p.New(p2p.Config{
		Profile: p2p.Private, Network: "lab", Identity: identity,
		Listen:    []ma.Multiaddr{ma.StringCast("/ip4/0.0.0.0/tcp/0"), ma.StringCast("/ip4/0.0.0.0/udp/0/quic-v1")},
		Bootstrap: []peer.AddrInfo{c.Bootstrap},
		Datastore: func(name string) ds.Batching { return namespace.Wrap(store, ds.NewKey(name)) },
	}, emptyShelf{}, zap.NewNop())
}

// fetch fetches the NAR as soon as the node has a relay, and again while the holder,
// a workstation, has no room for one more.
func (c *crowd) fetch(ctx context.Context, node *p2p.Node) (way string, err error) {
	for node.Status().Reach.Reach != p2p.Relayed {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return "", errors.New("no relay")
		}
	}
	for {
		if way, err = c.tryFetch(ctx, node); err == nil || ctx.Err() != nil {
			return way, err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

func (c *crowd) tryFetch(ctx context.Context, node *p2p.Node) (way string, err error) {
	t, err := node.Open(ctx, swarm.Want{Hash: c.Hash, Size: c.Size})
	if err != nil {
		return "", err
	}
	defer t.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, t); err != nil {
		return "", err
	}
	if !bytes.Equal(sum.Sum(nil), c.Hash[:]) {
		return "", errors.New("other bytes have come")
	}
	return t.Sources()[0].Via, nil
}

// emptyShelf shares nothing.
type emptyShelf struct{}

func (emptyShelf) Held(nix.NARHash) (root chunk.Root, rootKnown, held bool) { return }

func (emptyShelf) Narinfo(context.Context, nix.HashPart) (*narinfo.Info, error) {
	return nil, narstore.ErrNotFound
}

func (emptyShelf) Open(context.Context, nix.NARHash) (narstore.NAR, error) {
	return nil, narstore.ErrNotFound
}

func (emptyShelf) Manifest(context.Context, nix.NARHash, func([]byte) error) (chunk.Root, error) {
	return chunk.Root{}, narstore.ErrNotFound
}

func (emptyShelf) Follow(ctx context.Context, f func(share.Change) error) error {
	if err := f(share.Change{Settled: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// An office of fifty comes at once, from one address, to one infrastructure node:
// each gets a relay there, and a NAR from one who is behind another NAT.
func TestFiftyBehindOneAddress(t *testing.T) {
	const nodes = 50
	a := newAbroad(t, 64<<10, lab.DaemonConfig{})
	a.holder("holder", a.at("holder", 1))
	record := a.large()
	task, err := json.Marshal(crowd{Nodes: nodes, Bootstrap: a.relay.AddrInfo(), Hash: record.NARHash, Size: record.NARSize})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	office := a.at("office", 1)
	// They are on one host, which they would all find each other on.
	office.NoMDNS()
	cmd := office.Command(a.Context(), os.Args[0])
	var out, said bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), crowdVariable+"="+string(task)), &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("crowd: %v\n%s", err, said.String())
	}
	var got told
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("crowd: %v\n%s", err, out.String())
	}
	t.Logf("after %v %+v", time.Since(begin), got)
	if got.Relays != nodes || got.Ways["direct"] != nodes || len(got.Errs) > 0 {
		t.Errorf("of %d nodes %d have a relay, and the NAR came %v; %q", nodes, got.Relays, got.Ways, got.Errs)
	}
}
