package main

import (
	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

func newWithdraw(o *options) *cobra.Command {
	c := pathsCommand(o, "withdraw PATH...", "stop sharing store paths", "withdrawn", (*control.Client).Withdraw)
	c.Long = "Stop sharing store paths, until they are provided again.\n\n" +
		"Peers are told \"not held\" at once. What the DHT was told cannot be taken back: it\n" +
		"forgets within 48 hours."
	c.Example = "  p2pctl withdraw /nix/store/…-linux-firmware-20260101"
	return c
}
