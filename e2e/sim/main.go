// Command sim measures announcing and looking up in a simulated network: real
// DHT nodes, whose messages are function calls (package p2p/routing/sim).
//
// It prints what docs/scale.md says of large networks.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/nar-p2p/nar-p2p/narstore/share"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/routing/sim"
)

func main() {
	s := study{out: os.Stdout}
	flag.IntVar(&s.nodes, "nodes", 10_000, "DHT servers in the network")
	flag.IntVar(&s.keys, "keys", 30_000, "keys that one node announces")
	flag.IntVar(&s.lookups, "lookups", 1000, "lookups for each figure")
	flag.Uint64Var(&s.seed, "seed", 1, "decides on everything that is random")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := s.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "sim: %v\n", err)
		os.Exit(1)
	}
}

// study is one run.
type study struct {
	out                  io.Writer
	nodes, keys, lookups int
	seed                 uint64

	network *sim.Network
	random  *rand.Rand
}

func (s *study) run(ctx context.Context) (err error) {
	s.random = rand.New(rand.NewPCG(s.seed, 1))
	start := time.Now()
	if s.network, err = sim.New(s.nodes, s.seed); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.network.Close()) }()
	fmt.Fprintf(s.out, "%d servers, made in %v\n", s.nodes, time.Since(start).Round(time.Second))

	fmt.Fprint(s.out, "\nAnnouncing, one cycle of 22 hours\n\n")
	fmt.Fprintln(s.out, "| by | keys | ADD_PROVIDER | FIND_NODE | servers contacted | sent | of it records | received | of the 20 nearest servers have it: mean, least |")
	fmt.Fprintln(s.out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	few := paths("few", s.keys/60)
	ours, bare := paths("ours", s.keys/2), paths("bare", s.keys/2)
	if _, err := s.announce(ctx, few); err != nil {
		return err
	}
	node, err := s.announce(ctx, ours)
	if err != nil {
		return err
	}
	if err := s.announceBare(ctx, bare); err != nil {
		return err
	}
	again, err := s.restart(ctx, node, ours)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\nAfter a restart %d records were sent again.\n", again)

	fmt.Fprint(s.out, "\nLooking up, with servers gone since without a word\n\n")
	fmt.Fprintln(s.out, "| gone | announced by | found | hops to the first: mean, most | servers asked until then: mean |")
	fmt.Fprintln(s.out, "| --- | --- | --- | --- | --- |")
	order := s.random.Perm(s.nodes)
	for _, percent := range []int{0, 20, 50} {
		for _, at := range order[:s.nodes*percent/100] {
			s.network.Servers()[at].Host.SetDown(true)
		}
		for _, set := range []struct {
			name string
			held []share.Key
		}{{"nar-p2p", ours}, {"the provider alone", bare}, {"nobody", paths("absent", s.lookups)}} {
			if err := s.lookUp(ctx, percent, set.name, set.held); err != nil {
				return err
			}
		}
	}
	return nil
}

// paths makes paths of which every one has a NAR of its own.
func paths(name string, count int) []share.Key {
	keys := make([]share.Key, count)
	for i := range keys {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(name), uint64(i)))
		keys[i] = share.Key{NARHash: sha256.Sum256(sum[:]), NARSize: 1 << 20}
		copy(keys[i].HashPart[:], sum[:])
	}
	return keys
}

// cids are the keys of paths.
func cids(held []share.Key) []cid.Cid {
	var keys []cid.Cid
	for _, k := range held {
		keys = append(keys, routing.ContentKey(k.NARHash), routing.MetadataKey(k.HashPart))
	}
	return keys
}

// report prints what a node has sent, and where its records are.
func (s *study) report(by string, host *sim.Host, keys []cid.Cid) error {
	const sample = 500
	sum, least := 0, 20
	for _, at := range s.random.Perm(len(keys))[:min(len(keys), sample)] {
		n, err := s.holders(keys[at])
		if err != nil {
			return err
		}
		sum, least = sum+n, min(least, n)
	}
	t := host.Traffic()
	fmt.Fprintf(s.out, "| %s | %d | %d | %d | %d | %.1f MB | %.1f MB | %.1f MB | %.1f, %d |\n", by, len(keys),
		t.Messages[addProvider], t.Messages[findNode], t.Contacts, mb(t.Sent), mb(t.SentRecords), mb(t.Received),
		float64(sum)/float64(min(len(keys), sample)), least)
	return nil
}

func mb(bytes int) float64 { return float64(bytes) / 1e6 }

// holders counts those of the 20 servers nearest to a key that have a record.
func (s *study) holders(key cid.Cid) (int, error) {
	n := 0
	for _, server := range s.network.Closest(key.Hash(), 20) {
		found, err := server.ProviderStore().GetProviders(context.Background(), key.Hash())
		if err != nil {
			return 0, err
		}
		if len(found) > 0 {
			n++
		}
	}
	return n, nil
}

// lookUp looks keys up from nodes that have just joined, and prints a row.
func (s *study) lookUp(ctx context.Context, percent int, name string, held []share.Key) error {
	const perNode = 50
	keys := cids(held)
	found, hops, most, asked := 0, 0, 0, 0
	for range s.lookups / perNode {
		node, err := s.join()
		if err != nil {
			return err
		}
		if err := node.dht.Bootstrap(ctx); err != nil {
			return errors.Join(err, node.close())
		}
		for range perNode {
			var trace sim.Trace
			lookup, cancel := context.WithTimeout(trace.Watch(ctx), time.Minute)
			for range node.dht.FindProviders(lookup, keys[s.random.IntN(len(keys))]) {
				found++
				break
			}
			cancel()
			hops, most, asked = hops+trace.Hops(), max(most, trace.Hops()), asked+trace.Requests()
		}
		if err := node.close(); err != nil {
			return err
		}
	}
	lookups := s.lookups / perNode * perNode
	fmt.Fprintf(s.out, "| %d %% | %s | %.1f %% | %.1f, %d | %.0f |\n", percent, name, 100*float64(found)/float64(lookups),
		float64(hops)/float64(max(found, 1)), most, float64(asked)/float64(lookups))
	return nil
}
