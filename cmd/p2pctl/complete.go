package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// maxCompletions bounds what a shell is offered: more than anybody reads.
const maxCompletions = 200

// completePaths completes the store paths of this machine.
func completePaths(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	dir, err := os.Open(nix.StoreDir)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer dir.Close()
	var found []cobra.Completion
	for len(found) < maxCompletions {
		names, err := dir.Readdirnames(1000)
		for _, name := range names {
			path, parseErr := nix.ParseStorePath(filepath.Join(nix.StoreDir, name))
			if parseErr != nil || path.IsDerivation() || len(found) == maxCompletions {
				continue
			}
			if strings.HasPrefix(path.String(), begun) {
				found = append(found, path.String())
			}
		}
		if err != nil {
			break
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completeLinks completes store paths, and files that may be links to such.
func completeLinks(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if strings.HasPrefix(begun, nix.StoreDir) {
		return completePaths(cmd, args, begun)
	}
	return completeFiles(cmd, args, begun)
}

// completeFiles leaves it to the shell.
func completeFiles(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// completeFlag has the values of a flag completed.
func completeFlag(cmd *cobra.Command, name string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
		panic("p2pctl: " + err.Error()) // there is such a flag
	}
}

// once completes the only argument that there may be.
func once(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, begun)
	}
}

// completeKeys completes the keys of the configuration, and the names of its
// tables.
func completeKeys(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var found []cobra.Completion
	table := ""
	for _, key := range config.Keys() {
		if name, _, nested := strings.Cut(key, "."); nested && name != table {
			found, table = append(found, name), name
		}
		found = append(found, key)
	}
	return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
