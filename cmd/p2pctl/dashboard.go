package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// newDashboard prints the address and opens nothing: what is on a command line,
// such as a browser's, every user of the machine can read.
func newDashboard(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "dashboard",
		Short:   "show where the dashboard is, with the right to pause sharing",
		Example: "  p2pctl dashboard",
		Long: "Print the address of the dashboard, with a token: a page that is opened by it may\n" +
			"pause and resume sharing. Whoever has no access to the control socket can read the\n" +
			"dashboard but change nothing. The token is good until the daemon ends.",
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := o.client().Dashboard(cmd.Context())
			switch {
			case err != nil:
				return err
			case o.json:
				return printJSON(cmd.OutOrStdout(), d)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), d.URL)
			return err
		},
	}
}
