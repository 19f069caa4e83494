package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/meter"
)

func newStats(o *options) *cobra.Command {
	var days int
	c := &cobra.Command{
		Use:   "stats",
		Short: "show how much came from where, by day",
		Long: "Show how many bytes of NARs Nix was given by day and source, how many of them no\n" +
			"cache had to send, and how much peers were sent. Days are kept for 400 days.",
		Example: "  p2pctl stats\n  p2pctl stats --days 365 --json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 1 || days > meter.KeptDays {
				return usageError{fmt.Errorf("--days: %d is not between 1 and %d", days, meter.KeptDays)}
			}
			stats, err := o.client().Stats(cmd.Context(), days)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), stats)
			}
			return printStats(cmd.OutOrStdout(), stats.Days)
		},
	}
	c.Flags().IntVarP(&days, "days", "n", 30, "the last days of which anything is known")
	return c
}

func printStats(w io.Writer, days []meter.Day) error {
	t := table(w)
	fmt.Fprintln(t, "DAY\tFETCHED\tSTORE\tREUSED\tLAN\tPEERS\tCACHES\tSAVED\tSERVED")
	row := func(name string, a meter.Amounts) {
		fmt.Fprint(t, name)
		for _, n := range []int64{a.Fetched(), a.Store, a.Reuse, a.LAN, a.Peer, a.Upstream, a.Saved(), a.Served} {
			fmt.Fprint(t, "\t", bytesText(uint64(n)))
		}
		fmt.Fprintln(t)
	}
	var all meter.Amounts
	for _, d := range days {
		row(d.Date, d.Amounts)
		all = all.Plus(d.Amounts)
	}
	if len(days) > 1 {
		row("all", all)
	}
	return t.Flush()
}
