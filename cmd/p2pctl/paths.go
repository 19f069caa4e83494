package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// pathsCommand returns a subcommand that does do for the paths that it is
// given and reports each as done.
func pathsCommand(o *options, use, short, done string,
	do func(*control.Client, context.Context, []nix.StorePath) ([]control.PathResult, error),
) *cobra.Command {
	return &cobra.Command{
		Use:               use,
		Short:             short,
		Args:              usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completePaths,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := parsePaths(args)
			if err != nil {
				return err
			}
			var results []control.PathResult
			err = waiting(cmd, "waiting for nar-p2pd", func() (err error) {
				results, err = do(o.client(), cmd.Context(), paths)
				return err
			})
			if err != nil {
				return err
			}
			if err := printResults(cmd, o, results, done); err != nil {
				return err
			}
			return failures(results)
		},
	}
}

func parsePaths(args []string) ([]nix.StorePath, error) {
	paths := make([]nix.StorePath, len(args))
	for i, arg := range args {
		path, err := nix.ParseStorePath(arg)
		if err != nil {
			return nil, usageError{err}
		}
		paths[i] = path
	}
	return paths, nil
}

// printResults prints what was done to standard output and what was not to
// standard error, or all of it as JSON.
func printResults(cmd *cobra.Command, o *options, results []control.PathResult, done string) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), results)
	}
	for _, r := range results {
		if r.Error != "" {
			cmd.PrintErrf("p2pctl: %s: %s\n", r.Path, r.Error)
		} else {
			cmd.Printf("%s: %s\n", r.Path, done)
		}
	}
	return nil
}

// failures returns an error if not all was done: one that is errNotFound where
// all of the errors are.
func failures(results []control.PathResult) error {
	failed, absent := 0, 0
	for _, r := range results {
		if r.Error != "" {
			failed++
		}
		if r.NotFound {
			absent++
		}
	}
	if failed == 0 {
		return nil
	}
	err := fmt.Errorf("%d of %d paths failed", failed, len(results))
	if failed == absent {
		err = fmt.Errorf("%d of %d paths: %w", failed, len(results), errNotFound)
	}
	return advice{err, "p2pctl explain PATH tells what is known of a path, and why it is not shared"}
}

// countPaths shows on a terminal how many paths of a closure have come.
func countPaths(cmd *cobra.Command, o *options, ask func(count func() error) error) error {
	progress := newCounter(cmd.ErrOrStderr(), o.json, "paths")
	err := ask(func() error { return progress.Add(1) })
	return cmp.Or(err, progress.Close())
}

// recordless is the error for paths of which nobody has a record, or nil where
// there are none.
func recordless(paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	first := printable(paths[0])
	err := fmt.Errorf("nobody has a record of %s%s: %w", first, unless(len(paths) == 1, fmt.Sprintf(" and %d more", len(paths)-1)), errNotFound)
	return advice{err, fmt.Sprintf("\"p2pctl explain %s\" tells who was asked, and what was said", first)}
}
