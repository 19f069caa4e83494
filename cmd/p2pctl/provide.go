package main

import (
	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

func newProvide(o *options) *cobra.Command {
	c := pathsCommand(o, "provide PATH...", "share store paths and announce them now", "provided", (*control.Client).Provide)
	c.Long = "Share store paths, also such as were withdrawn, and announce them to the\n" +
		"network now.\n\n" +
		"Paths are shared by themselves when they may be. One that may not fails with the\n" +
		"reason."
	c.Example = "  p2pctl provide $(readlink result)"
	return c
}
