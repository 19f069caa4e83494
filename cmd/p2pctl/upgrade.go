package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// upgradePlan is the JSON of upgrade-plan.
type upgradePlan struct {
	Total upgradeTotal `json:"total"`
	// Paths are those that are to be fetched, the most costly first.
	Paths []*control.UpgradePath `json:"paths"`
}

// upgradeTotal sums up what is to be fetched, in bytes.
type upgradeTotal struct {
	Paths int `json:"paths"`
	// Present counts the paths that are in the store already; what these refer to
	// is not looked at.
	Present int `json:"present"`
	// NotFound counts those of which nobody has a record. They count for nothing
	// else.
	NotFound    int   `json:"notFound"`
	NARSize     int64 `json:"narSize"`
	BySum       int64 `json:"bySum"`
	ByMaskedSum int64 `json:"byMaskedSum"`
	Transfer    int64 `json:"transfer"`
}

func newUpgradePlan(o *options) *cobra.Command {
	var alone bool
	c := &cobra.Command{
		Use:   "upgrade-plan PATH...",
		Short: "tell what it would cost to fetch the closure of a store path",
		Long: "Tell what it would cost to fetch store paths and all that they refer to: how many\n" +
			"bytes lie in other paths of the store as they are (by sum) or but for the hash parts\n" +
			"of store paths (by masked sum), and how many are to be transferred. A PATH of -\n" +
			"reads paths from standard input, one to a line, such as those of a closure.\n\n" +
			"It asks for the records of all that is missing, and peers for manifests, and\n" +
			"fetches no NAR. Upstreams have no manifests: what no peer has counts in full. Where\n" +
			"nobody has a record of some path the exit code is 4, and the sums are too low.",
		Example:           "  p2pctl upgrade-plan /nix/store/…-nixos-system\n  p2pctl upgrade-plan --alone - < paths",
		Args:              usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completePaths,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := readPaths(cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			plan := &upgradePlan{Paths: []*control.UpgradePath{}}
			err = countPaths(cmd, o, func(count func() error) error {
				return o.client().UpgradePlan(cmd.Context(), paths, alone, func(p *control.UpgradePath) error {
					plan.add(p)
					return count()
				})
			})
			if err != nil {
				return err
			}
			slices.SortStableFunc(plan.Paths, func(a, b *control.UpgradePath) int {
				return cmp.Or(cmp.Compare(b.Transfer, a.Transfer), cmp.Compare(a.StorePath, b.StorePath))
			})
			if o.json {
				err = printJSON(cmd.OutOrStdout(), plan)
			} else {
				err = plan.print(cmd.OutOrStdout())
			}
			if err != nil {
				return err
			}
			return recordless(plan.notFound())
		},
	}
	c.Flags().BoolVar(&alone, "alone", false, "leave out what the paths refer to")
	return c
}

// readPaths parses paths, of which "-" is those that r has.
func readPaths(r io.Reader, args []string) ([]nix.StorePath, error) {
	var texts []string
	for _, arg := range args {
		if arg != "-" {
			texts = append(texts, arg)
			continue
		}
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if text := strings.TrimSpace(lines.Text()); text != "" {
				texts = append(texts, text)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
	}
	return parsePaths(texts)
}

func (p *upgradePlan) add(path *control.UpgradePath) {
	if path.Present {
		p.Total.Present++
		return
	}
	p.Paths = append(p.Paths, path)
	t := &p.Total
	if path.NotFound {
		t.NotFound++
		return
	}
	t.Paths++
	t.NARSize += path.NARSize
	t.BySum += path.BySum
	t.ByMaskedSum += path.ByMaskedSum
	t.Transfer += path.Transfer
}

// notFound returns the paths of which nobody has a record.
func (p *upgradePlan) notFound() (paths []string) {
	for _, path := range p.Paths {
		if path.NotFound {
			paths = append(paths, path.StorePath)
		}
	}
	return paths
}

func (p *upgradePlan) print(w io.Writer) error {
	t := table(w)
	row := func(name string, size, bySum, byMaskedSum, transfer int64, note string) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", name, explain.Size(size), explain.Size(bySum), explain.Size(byMaskedSum), explain.Size(transfer), note)
	}
	fmt.Fprintln(t, "package\tsize\tby sum\tby masked sum\tto transfer\t")
	for _, path := range p.Paths {
		name := path.StorePath
		if parsed, err := nix.ParseStorePath(name); err == nil {
			name = parsed.Name()
		}
		if path.NotFound {
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t%s\n", printable(name), printable(path.Problem))
			continue
		}
		row(printable(name), path.NARSize, path.BySum, path.ByMaskedSum, path.Transfer, printable(path.Problem))
	}
	total := &p.Total
	share := ""
	if total.NARSize > 0 {
		share = fmt.Sprintf("%.1f %%", 100*float64(total.Transfer)/float64(total.NARSize))
	}
	counts := fmt.Sprintf("%d to fetch, %d are there", total.Paths, total.Present)
	if total.NotFound > 0 {
		counts += fmt.Sprintf(", %d not found", total.NotFound)
	}
	row(counts, total.NARSize, total.BySum, total.ByMaskedSum, total.Transfer, share)
	return t.Flush()
}
