package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
)

func newPeersConnect(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "connect PEER",
		Short:   "connect with a peer now",
		Long:    "Connect with a peer now. It is not kept connected: see p2p.peers for that.",
		Example: "  p2pctl peers connect /ip4/192.0.2.1/tcp/8461/p2p/12D3KooW...",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := parsePeer(args[0])
			if err != nil {
				return err
			}
			err = waiting(cmd, "connecting", func() error { return o.client().Connect(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), map[string]peer.ID{"connected": info.ID})
			}
			cmd.Printf("%s: connected\n", info.ID)
			return nil
		},
	}
}

// pingInterval is the time from one ping to the next.
const pingInterval = time.Second

// maxPings bounds --count.
const maxPings = 1000

func newPeersPing(o *options) *cobra.Command {
	var count int
	c := &cobra.Command{
		Use:               "ping PEER",
		Short:             "measure round trips to a peer",
		Example:           "  p2pctl peers ping -c 10 12D3KooW...",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: once(o.completePeers),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := parsePeer(args[0])
			switch {
			case err != nil:
				return err
			case count < 1 || count > maxPings:
				return usageError{fmt.Errorf("--count: %d is not between 1 and %d", count, maxPings)}
			}
			return o.ping(cmd, info, args[0], count)
		},
	}
	c.Flags().IntVarP(&count, "count", "c", 4, "how often, a second apart")
	return c
}

// ping prints round trips as they come.
func (o *options) ping(cmd *cobra.Command, info *peer.AddrInfo, address string, count int) error {
	client := o.client()
	if len(info.Addrs) > 0 {
		if err := client.Connect(cmd.Context(), address); err != nil {
			return err
		}
	}
	seconds := []float64{}
	for i := range count {
		if i > 0 && !pause(cmd.Context(), pingInterval) {
			return context.Cause(cmd.Context())
		}
		took, err := client.Ping(cmd.Context(), info.ID)
		if err != nil {
			return err
		}
		seconds = append(seconds, took.Seconds())
		if !o.json {
			cmd.Printf("%s: %v\n", info.ID, took.Round(time.Microsecond))
		}
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), map[string]any{"peer": info.ID, "seconds": seconds})
	}
	return nil
}

func newPeersBench(o *options) *cobra.Command {
	size := "16MiB"
	c := &cobra.Command{
		Use:   "bench PEER",
		Short: "measure how fast a peer is",
		Long: "Fetch a part of one NAR from a peer over one stream, for ten seconds at most, check it\n" +
			"and throw it away. It is one that this node shares itself. The limits of both sides\n" +
			"hold, and a peer without room says so: the rate is what a fetch from this peer alone\n" +
			"would have now.",
		Example:           "  p2pctl peers bench 12D3KooW... --size 64MiB",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: once(o.completePeers),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := parsePeer(args[0])
			if err != nil {
				return err
			}
			n, err := config.ParseSize(size)
			if err != nil || n < 1 || n > control.MaxBench {
				return usageError{fmt.Errorf("--size: %.40q is not a size from 1 to %s, such as 64MiB", size, bytesText(control.MaxBench))}
			}
			return o.bench(cmd, info, args[0], n)
		},
	}
	c.Flags().StringVar(&size, "size", size, "how much to fetch at most")
	return c
}

// bench prints how fast a peer is.
func (o *options) bench(cmd *cobra.Command, info *peer.AddrInfo, address string, size int64) error {
	client := o.client()
	if len(info.Addrs) > 0 {
		if err := client.Connect(cmd.Context(), address); err != nil {
			return err
		}
	}
	b, err := client.Bench(cmd.Context(), info.ID, size)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), b)
	}
	span := func(seconds float64) time.Duration {
		return time.Duration(seconds * float64(time.Second)).Round(100 * time.Microsecond)
	}
	cmd.Printf("%s: %s/s (%s in %v, %s), round trip %v, first chunk after %v\n", info.ID, bytesText(uint64(b.BytesPerSecond)),
		bytesText(uint64(b.Bytes)), span(b.Seconds), b.Via, span(b.RTTSeconds), span(b.FirstByteSeconds))
	if b.DownloadLimit > 0 {
		cmd.Printf("downloads of this node are limited to %s/s\n", bytesText(uint64(b.DownloadLimit)))
	}
	return nil
}

// pause reports false where ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func newPeersBan(o *options) *cobra.Command {
	var duration time.Duration
	c := &cobra.Command{
		Use:               "ban PEER",
		Short:             "have nothing to do with a peer",
		Long:              "Disconnect from a peer, and neither dial nor admit it again, also after a restart.\nOther peers are not told.",
		Example:           "  p2pctl peers ban 12D3KooW... --for 24h",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: once(o.completePeers),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := parsePeer(args[0])
			switch {
			case err != nil:
				return err
			case duration < 0:
				return usageError{errors.New("--for: is less than nothing")}
			}
			b, err := o.client().Ban(cmd.Context(), info.ID, duration)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), b)
			}
			cmd.Printf("%s: banned %s\n", b.Peer, untilText(b))
			return nil
		},
	}
	c.Flags().DurationVar(&duration, "for", 0, "for how long, such as 24h (default: until it is taken back)")
	return c
}

func untilText(b control.Ban) string {
	if b.Until.IsZero() {
		return "until it is taken back"
	}
	return "until " + b.Until.Local().Format(time.DateTime)
}

func newPeersUnban(o *options) *cobra.Command {
	return &cobra.Command{
		Use:               "unban PEER",
		Short:             "take a ban back",
		Example:           "  p2pctl peers unban 12D3KooW...",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: once(o.completeBanned),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := parsePeer(args[0])
			if err != nil {
				return err
			}
			if err := o.client().Unban(cmd.Context(), info.ID); err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), map[string]peer.ID{"unbanned": info.ID})
			}
			cmd.Printf("%s: no longer banned\n", info.ID)
			return nil
		},
	}
}

func newPeersBanned(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "banned",
		Short:   "list the peers that are banned",
		Example: "  p2pctl peers banned --json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			bans, err := o.client().Bans(cmd.Context())
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), bans)
			}
			for _, b := range bans {
				cmd.Printf("%s: %s\n", b.Peer, untilText(b))
			}
			return nil
		},
	}
}

func parsePeer(text string) (*peer.AddrInfo, error) {
	info, err := control.ParsePeer(text)
	if err != nil {
		return nil, usageError{err}
	}
	return info, nil
}

// completePeers completes the IDs of connected peers, those that speak nar-p2p
// first.
func (o *options) completePeers(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	peers, err := o.client().Peers(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var speaking, others []cobra.Completion
	for _, p := range peers {
		completion := cobra.CompletionWithDesc(p.ID, peerKind(p))
		if p.Exchange {
			speaking = append(speaking, completion)
		} else {
			others = append(others, completion)
		}
	}
	return append(speaking, others...), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeBanned completes the IDs of banned peers.
func (o *options) completeBanned(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	bans, err := o.client().Bans(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var found []cobra.Completion
	for _, b := range bans {
		found = append(found, cobra.CompletionWithDesc(b.Peer, untilText(b)))
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
