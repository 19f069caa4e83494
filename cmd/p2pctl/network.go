package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"

	"github.com/multiformats/go-multiaddr"
	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/invitation"
)

// maxWord bounds an invitation that is read from standard input, in bytes.
const maxWord = 16 << 10

func newNetwork(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "network",
		Short: "make, join and show a private network",
		Args:  usage(cobra.NoArgs),
		RunE:  group,
	}
	c.AddCommand(newNetworkCreate(o), newNetworkJoin(o), newNetworkShow(o))
	return c
}

func newNetworkCreate(o *options) *cobra.Command {
	var bootstrap []string
	var key bool
	f := folder{invites: true}
	c := &cobra.Command{
		Use:     "create NAME",
		Short:   "make a private network: settings, and an invitation for others",
		Example: "  p2pctl network create acme --bootstrap=/dns4/p2p.example.org/tcp/8461/p2p/12D3KooW...",
		Long: "Make a private network. What is printed goes into config.toml, on this machine\n" +
			"and on all others, which get it by \"p2pctl network join INVITATION\".\n\n" +
			"Whoever knows the name of a network can take part in it, unless the settings\n" +
			"have an allow-list (p2p.allow, p2p.allow_file) or, with --psk, a key. An\n" +
			"allow-list usually serves better: with a key there is no QUIC, NATs are harder\n" +
			"to get through, and it cannot be taken from one member alone.",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			invited := &invitation.Invitation{Network: args[0]}
			if key {
				invited.Key = make([]byte, invitation.KeySize)
				_, _ = rand.Read(invited.Key) // It never fails.
			}
			var err error
			if invited.Bootstrap, err = parseAddresses(bootstrap); err != nil {
				return usageError{err}
			}
			if len(bootstrap) == 0 {
				invited.Bootstrap = ownAddresses(cmd.Context(), o, key)
			}
			if err := invited.Check(); err != nil {
				return usageError{err}
			}
			return f.give(cmd, o, invited)
		},
	}
	c.Flags().StringArrayVar(&bootstrap, "bootstrap", nil,
		"the address of a node through which others join, with /p2p/PEER-ID at the end; may be repeated (default those of the nar-p2pd that runs here)")
	c.Flags().BoolVar(&key, "psk", false, "make a pre-shared key, without which nobody can connect; the invitation is a secret then")
	f.addFlags(c)
	return c
}

func newNetworkJoin(o *options) *cobra.Command {
	var f folder
	c := &cobra.Command{
		Use:     "join INVITATION|-",
		Short:   "print, or write, the settings of a network one is invited to",
		Example: "  p2pctl network join narp2p1...\n  p2pctl network join - --write < invitation",
		Long: "Print the settings that an invitation stands for. With - it is read from\n" +
			"standard input, so that a secret does not end up in the shell's history.",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			word := args[0]
			if word == "-" {
				text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxWord))
				if err != nil {
					return err
				}
				word = string(text)
			}
			invited, err := invitation.Parse(word)
			if err != nil {
				return usageError{fmt.Errorf("this %w", err)}
			}
			return f.give(cmd, o, invited)
		},
	}
	f.addFlags(c)
	return c
}

func newNetworkShow(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "print an invitation to the network of the running nar-p2pd",
		Example: "  p2pctl network show | ssh other-machine p2pctl network join - --write",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := o.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			invited, err := invitationTo(&status)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), networkResultOf(invited, nil))
			}
			cmd.Println(invited)
			note(cmd, invited)
			if status.P2P.Allowed != nil {
				cmd.PrintErrf("p2pctl: network %s has an allow-list: put the new node's peer ID on that of every node\n", invited.Network)
			}
			return nil
		},
	}
}

// invitationTo puts together the invitation to the network of a running node.
func invitationTo(s *control.Status) (*invitation.Invitation, error) {
	if s.P2P == nil || s.Network == "public" {
		return nil, &control.Error{
			Message: "this node is not in a private network", Hint: "the public network needs no invitation; p2pctl network create makes a private one",
		}
	}
	invited := &invitation.Invitation{Network: s.Network}
	if s.P2P.PSKFile != "" {
		key, err := readPSK(s.P2P.PSKFile)
		if err != nil {
			return nil, err
		}
		invited.Key = key
	}
	var texts []string
	for _, text := range s.P2P.Bootstrap {
		if !strings.HasSuffix(text, s.P2P.PeerID) {
			texts = append(texts, text)
		}
	}
	// A node that others have as their bootstrap node has itself as one too.
	if len(texts) == 0 || len(texts) < len(s.P2P.Bootstrap) || s.Role == "infrastructure" {
		texts = append(shareable(s.P2P.Addresses, invited.Secret()), texts...)
	}
	addrs, err := parseAddresses(texts[:min(len(texts), invitation.MaxBootstrap)])
	if err != nil {
		return nil, err
	}
	invited.Bootstrap = addrs
	return invited, invited.Check()
}

// ownAddresses returns those of the node that runs here, if one does.
func ownAddresses(ctx context.Context, o *options, key bool) []multiaddr.Multiaddr {
	status, err := o.client().Status(ctx)
	if err != nil || status.P2P == nil {
		return nil
	}
	texts := shareable(status.P2P.Addresses, key)
	// What the node says of itself is well formed.
	addrs, _ := parseAddresses(texts[:min(len(texts), invitation.MaxBootstrap)])
	return addrs
}

// shareable leaves out addresses that are of no use in another network: those
// through relays, and with a pre-shared key those of QUIC.
func shareable(texts []string, key bool) []string {
	var left []string
	for _, text := range texts {
		quic := strings.Contains(text, "/udp/")
		if !strings.Contains(text, "/p2p-circuit") && (!key || !quic) {
			left = append(left, text)
		}
	}
	return left
}

func parseAddresses(texts []string) ([]multiaddr.Multiaddr, error) {
	var addrs []multiaddr.Multiaddr
	for _, text := range texts {
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("%.80q is not a multiaddr such as /ip4/192.0.2.1/tcp/8461/p2p/PEER-ID", text)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}
