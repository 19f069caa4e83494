package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

func newPeers(o *options) *cobra.Command {
	list := func(cmd *cobra.Command, _ []string) error {
		peers, err := o.client().Peers(cmd.Context())
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(cmd.OutOrStdout(), peers)
		}
		return printPeers(cmd.OutOrStdout(), peers)
	}
	c := &cobra.Command{
		Use:   "peers",
		Short: "list the connected peers, meet one, or ban one",
		Long: "List the connected peers, as \"p2pctl peers ls\" does, or deal with one of them.\n\n" +
			"A PEER is a peer ID, or a multiaddr that ends in one.",
		Args: usage(cobra.NoArgs),
		RunE: list,
	}
	c.AddCommand(
		&cobra.Command{Use: "ls", Short: "list the connected peers", Example: "  p2pctl peers ls --json | jq '.[] | select(.lan)'", Args: usage(cobra.NoArgs), RunE: list},
		newPeersConnect(o), newPeersPing(o), newPeersBench(o), newPeersBan(o), newPeersUnban(o), newPeersBanned(o),
	)
	return c
}

func printPeers(w io.Writer, peers []control.Peer) error {
	if isTerminal(w) {
		w = &cutter{w: w, columns: width(w)} // addresses are many, and last
	}
	t := table(w)
	fmt.Fprintln(t, "PEER\tKIND\tLATENCY\tAGENT\tADDRESSES")
	for _, p := range peers {
		latency := "-"
		if p.LatencySeconds > 0 {
			latency = time.Duration(p.LatencySeconds * float64(time.Second)).Round(100 * time.Microsecond).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", p.ID, peerKind(p), latency, agentText(p.Agent), printable(strings.Join(p.Addresses, " ")))
	}
	return t.Flush()
}

// peerKind says in words what the peer is to us.
func peerKind(p control.Peer) string {
	var words []string
	for _, w := range []struct {
		holds bool
		word  string
	}{{p.Exchange, "nar"}, {p.LAN, "lan"}, {p.Allowed, "allowed"}, {p.Relayed, "relayed"}, {p.RestsUntil != nil, "resting"}} {
		if w.holds {
			words = append(words, w.word)
		}
	}
	if len(words) == 0 {
		return "dht"
	}
	return strings.Join(words, ",")
}

// maxAgent is how much is shown of what a peer calls its software.
const maxAgent = 40

func agentText(agent string) string {
	if agent == "" {
		return "-"
	}
	return printable(agent[:min(len(agent), maxAgent)])
}
