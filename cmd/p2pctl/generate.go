package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/version"
)

// newGenerate makes what packages have beside the programs. It is for those who
// build them, and not in the help.
func newGenerate(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:    "generate DIR",
		Short:  "write man pages and completions to DIR/man and DIR/completions",
		Hidden: true,
		Args:   usage(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := writeManPages(root, filepath.Join(args[0], "man")); err != nil {
				return err
			}
			return writeCompletions(root, filepath.Join(args[0], "completions"))
		},
	}
}

func writeManPages(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	header := doc.GenManHeader{Section: "1", Source: "nar-p2p " + version.String(), Manual: "nar-p2p"}
	root.DisableAutoGenTag = true // The date would make no two builds alike.
	if err := doc.GenManTree(root, &header, dir); err != nil {
		return err
	}
	header.Section = "8"
	if err := doc.GenManTree(daemonCommand(), &header, dir); err != nil {
		return err
	}
	title := fmt.Sprintf("%% \"NAR-P2P.TOML\" \"5\" \"\" %q %q\n", header.Source, header.Manual)
	return os.WriteFile(filepath.Join(dir, "nar-p2p.toml.5"), md2man.Render([]byte(title+config.Manual())), 0o644)
}

// daemonCommand is nar-p2pd as if it were a command of this program.
func daemonCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "nar-p2pd",
		Short: "a peer-to-peer binary cache for Nix",
		Long: "nar-p2pd is a substituter for Nix on localhost that fetches store paths from other\n" +
			"machines that have them, and shares with them what this machine's store holds and\n" +
			"its owner allows. p2pctl(1) asks it how it is and tells it what to do.\n\n" +
			"It needs no configuration. Settings come from a TOML file, variables of the\n" +
			"environment and these flags; the key of a flag is its name with dots for some of\n" +
			"the dashes, and nar-p2p.toml(5) describes them. SIGTERM and SIGINT end it once\n" +
			"transfers have finished, a second one at once.",
		Example:           "  nar-p2pd --profile=consume\n  nar-p2pd --check --config=/etc/nar-p2p/config.toml",
		DisableAutoGenTag: true,
		Run:               func(*cobra.Command, []string) {},
	}
	config.AddFlags(c.Flags())
	c.Flags().Bool("check", false, "check the settings and the files that they name, and start nothing")
	c.Flags().Bool("version", false, "print the version")
	return c
}

// writeCompletions names the files as the shells look for them.
func writeCompletions(root *cobra.Command, dir string) error {
	for _, shell := range []struct {
		file  string
		write func(string) error
	}{
		{"bash/p2pctl", func(f string) error { return root.GenBashCompletionFileV2(f, true) }},
		{"zsh/_p2pctl", root.GenZshCompletionFile},
		{"fish/p2pctl.fish", func(f string) error { return root.GenFishCompletionFile(f, true) }},
	} {
		file := filepath.Join(dir, shell.file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := shell.write(file); err != nil {
			return err
		}
	}
	return nil
}
