package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/version"
)

func newVersion(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "print the version of p2pctl",
		Example: "  p2pctl version --json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"version": version.String()})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "p2pctl", version.String())
			return err
		},
	}
}
