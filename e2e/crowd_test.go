package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// crowdVariable holds a crowd's task, and makes the test program a crowd.
const crowdVariable = "NAR_P2P_CROWD"

// crowd is nodes in one process on one host, which all want the same NAR.
type crowd struct {
	Nodes int
	// AtOnce is how many of them there are at a time, each of which tries once and
	// goes; 0 is all, who try until they have it and stay.
	AtOnce int
	// IPv6 says that the host has addresses of it.
	IPv6      bool
	Bootstrap peer.AddrInfo
	Hash      nix.NARHash
	Size      int64
}

// outcome is what became of a node.
type outcome struct {
	// Way is how the NAR came, "" where it did not, for the reason Err.
	Way, Err string
	// Took is the time from the request to the whole NAR.
	Took  time.Duration
	Reach p2p.Reach
}

// runCrowd is the test program as a crowd.
func runCrowd(task string) int {
	var c crowd
	if err := json.Unmarshal([]byte(task), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	patience := 3 * lab.Patience
	if c.AtOnce > 0 {
		patience *= time.Duration(c.Nodes/c.AtOnce + 1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := json.NewEncoder(os.Stdout).Encode(c.run(ctx)); err != nil {
		return 1
	}
	return 0
}

func (c *crowd) run(ctx context.Context) []outcome {
	outcomes := make([]outcome, c.Nodes)
	var nodes errgroup.Group
	if c.AtOnce > 0 {
		nodes.SetLimit(c.AtOnce)
	}
	var left sync.WaitGroup
	left.Add(c.Nodes)
	for i := range outcomes {
		nodes.Go(func() error {
			ctx, cancel := context.WithCancel(ctx)
			node, err := c.node()
			if err != nil {
				outcomes[i].Err = err.Error()
				left.Done()
				cancel()
				return err
			}
			var running sync.WaitGroup
			running.Go(func() { _ = node.Run(ctx) }) // It ends with ctx.
			outcomes[i] = c.member(ctx, node)
			left.Done()
			if c.AtOnce == 0 {
				left.Wait()
			}
			cancel()
			running.Wait()
			return nil
		})
	}
	_ = nodes.Wait() // All errors are in outcomes.
	return outcomes
}

func (c *crowd) node() (*p2p.Node, error) {
	listen := []ma.Multiaddr{ma.StringCast("/ip4/0.0.0.0/tcp/0"), ma.StringCast("/ip4/0.0.0.0/udp/0/quic-v1")}
	if c.IPv6 {
		listen = append(listen, ma.StringCast("/ip6/::/tcp/0"), ma.StringCast("/ip6/::/udp/0/quic-v1"))
	}
	return lab.NewPeer(p2p.Config{Profile: p2p.Private, Listen: listen, Bootstrap: []peer.AddrInfo{c.Bootstrap}}, nil)
}

// member fetches the NAR as soon as the node has a relay.
func (c *crowd) member(ctx context.Context, node *p2p.Node) (o outcome) {
	<-node.Ready()
	for node.Status().Reach.Reach != p2p.Relayed {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return outcome{Err: "no relay: " + node.Status().Reach.Why}
		}
	}
	begin := time.Now()
	var tries []string
	for {
		way, err := c.fetch(ctx, node)
		if err != nil {
			tries = append(tries, fmt.Sprintf("after %v: %v", time.Since(begin).Round(time.Second), err))
		}
		if err == nil || ctx.Err() != nil || c.AtOnce > 0 {
			o.Way = way
			if err != nil {
				o.Err = strings.Join(tries[max(0, len(tries)-8):], "; ")
			}
			break
		}
		// The holder, a workstation, has no room for one more.
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	o.Took, o.Reach = time.Since(begin), node.Status().Reach.Reach
	return o
}

func (c *crowd) fetch(ctx context.Context, node *p2p.Node) (way string, err error) {
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

// crowd runs nodes on a host, which all want the large NAR.
func (a *abroad) crowd(host *lab.Host, nodes, atOnce int) []outcome {
	a.tb.Helper()
	record := a.large()
	task, err := json.Marshal(crowd{Nodes: nodes, AtOnce: atOnce, IPv6: host.Addr6 != "", Bootstrap: a.relay.AddrInfo(), Hash: record.NARHash, Size: record.NARSize})
	if err != nil {
		a.tb.Fatal(err)
	}
	// They are on one host, which they would all find each other on.
	host.NoMDNS()
	cmd := host.Command(a.tb.Context(), os.Args[0])
	var out, said bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), crowdVariable+"="+string(task)), &out, &said
	if err := cmd.Run(); err != nil {
		a.tb.Fatalf("crowd: %v\n%s", err, said.String())
	}
	var outcomes []outcome
	if err := json.Unmarshal(out.Bytes(), &outcomes); err != nil {
		a.tb.Fatalf("crowd: %v\n%s", err, out.String())
	}
	return outcomes
}

// An office of fifty comes at once, from one address, to one infrastructure node:
// each gets a relay there, and a NAR from one who is behind another NAT.
func TestFiftyBehindOneAddress(t *testing.T) {
	const nodes = 50
	a := newAbroad(t, 64<<10, lab.DaemonConfig{})
	a.holder("holder", a.at("holder", 1))
	var longest time.Duration
	for i, o := range a.crowd(a.at("office", 1), nodes, 0) {
		if o.Way != "direct" {
			t.Errorf("node %d: %+v", i, o)
		}
		longest = max(longest, o.Took)
	}
	t.Logf("the last had it after %v", longest)
}
