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

// statsColumns are those of the table. A source that nothing came from is left out.
var statsColumns = []struct {
	title  string
	source bool
	of     func(meter.Amounts) int64
}{
	{"FETCHED", false, meter.Amounts.Fetched},
	{"STORE", true, func(a meter.Amounts) int64 { return a.Store }},
	{"REUSED", true, func(a meter.Amounts) int64 { return a.Reuse }},
	{"LAN", true, func(a meter.Amounts) int64 { return a.LAN }},
	{"PEERS", true, func(a meter.Amounts) int64 { return a.Peer }},
	{"CACHES", true, func(a meter.Amounts) int64 { return a.Upstream }},
	{"SAVED", false, meter.Amounts.Saved},
	{"SERVED", false, func(a meter.Amounts) int64 { return a.Served }},
}

func printStats(w io.Writer, days []meter.Day) error {
	var all meter.Amounts
	for _, d := range days {
		all = all.Plus(d.Amounts)
	}
	t := table(w)
	row := func(name string, cell func(i int) string) {
		fmt.Fprint(t, name)
		for i, c := range statsColumns {
			if !c.source || c.of(all) > 0 {
				fmt.Fprint(t, "\t", cell(i))
			}
		}
		fmt.Fprintln(t)
	}
	amounts := func(name string, a meter.Amounts) {
		row(name, func(i int) string { return bytesText(uint64(statsColumns[i].of(a))) })
	}
	row("DAY", func(i int) string { return statsColumns[i].title })
	for _, d := range days {
		amounts(d.Date, d.Amounts)
	}
	if len(days) > 1 {
		amounts("all", all)
	}
	return t.Flush()
}
