package main

import (
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
			results, err := do(o.client(), cmd.Context(), paths)
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
	if failed == absent {
		return fmt.Errorf("%d of %d paths: %w", failed, len(results), errNotFound)
	}
	return fmt.Errorf("%d of %d paths failed", failed, len(results))
}
