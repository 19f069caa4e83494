package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/version"
)

// socketEnv names the daemon's socket where --socket does not.
const socketEnv = "NAR_P2P_SOCKET"

// options are the flags that all subcommands have.
type options struct {
	socket string
	json   bool
}

func newRoot() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "p2pctl",
		Short: "control a running nar-p2pd",
		Long: "p2pctl asks a running nar-p2pd, the peer-to-peer binary cache for Nix, how it\n" +
			"is, and tells it what to do.\n\n" + exitCodes,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{fmt.Errorf("no command: try %q or %q", "p2pctl status", "p2pctl --help")}
		},
	}
	// Files are completed where some are wanted.
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetVersionTemplate("p2pctl {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVar(&o.socket, "socket", "", "the daemon's control socket (default $"+socketEnv+", else where nar-p2pd puts it)")
	completeFlag(root, "socket", completeFiles)
	root.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON")
	addGroup(root, "look", "How the node is:", newStatus(o), newDoctor(o), newWatch(o), newStats(o), newPeers(o), newDashboard(o))
	addGroup(root, "paths", "Where store paths are:", newFind(o), newExplain(o), newHealth(o), newUpgradePlan(o), newFetch(o))
	addGroup(root, "share", "What others get:", newPause(o), newResume(o), newProvide(o), newWithdraw(o), newSign(o), newKey(o))
	addGroup(root, "set", "Settings:", newConfig(o), newNetwork(o))
	root.AddCommand(newVersion(o), newGenerate(root))
	return root
}

// addGroup adds commands that the help lists together.
func addGroup(root *cobra.Command, id, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: id, Title: title})
	for _, c := range commands {
		c.GroupID = id
	}
	root.AddCommand(commands...)
}

func (o *options) client() *control.Client {
	if o.socket == "" {
		o.socket = os.Getenv(socketEnv)
	}
	if o.socket != "" {
		return control.NewClient([]string{o.socket})
	}
	return control.NewClient(config.ClientSockets(os.Environ()))
}

// group is run where only one of cmd's subcommands can be.
func group(cmd *cobra.Command, _ []string) error {
	return usageError{fmt.Errorf("no command: try %q", cmd.CommandPath()+" --help")}
}

// printJSON writes v as indented JSON.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table returns a writer that aligns columns separated by tabs; it is to be
// flushed.
func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 4, 2, ' ', 0) }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width returns the columns of the terminal that w is, or those of a usual one.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return 80
}

// cutter cuts what does not fit into a line of a terminal.
type cutter struct {
	w       io.Writer
	columns int
	used    int
}

// Write implements io.Writer.
func (c *cutter) Write(p []byte) (int, error) {
	var line []rune
	for _, r := range string(p) {
		c.used++
		switch {
		case r == '\n':
			c.used = 0
		case c.used == c.columns:
			r = '…' // though it may be the last
		case c.used > c.columns:
			continue
		}
		line = append(line, r)
	}
	if _, err := io.WriteString(c.w, string(line)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// wrap breaks text at blanks into lines of at most columns bytes, and longer
// words.
func wrap(text string, columns int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > columns {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// printable keeps what peers wrote (their agent, names in addresses) from
// moving the terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
