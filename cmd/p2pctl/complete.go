package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

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
