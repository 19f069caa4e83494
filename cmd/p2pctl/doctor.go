package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/doctor"
)

// errIll says that a check has failed.
var errIll = errors.New("something keeps Nix from using nar-p2pd")

// answerTimeout is how long a server may take to begin to answer.
const answerTimeout = 15 * time.Second

func newDoctor(o *options) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "check that Nix gets what it should, and say what to do where it does not",
		Long: "Check, from the user's side, the daemon, Nix's settings, the store, the upstreams,\n" +
			"the network and this machine, and fetch one path from end to end.\n\n" +
			"The exit code is 1 where a check has failed, and 0 where there are only warnings.",
		Example: "  p2pctl doctor\n  p2pctl doctor --json | jq '.[] | select(.verdict != \"ok\")'",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			patient := doctor.Patient{Node: o.client(), Nix: doctor.NixSettings, HTTP: newHTTPClient()}
			if path != "" {
				target, err := control.ParseTarget(path)
				if err != nil || target.IsHash {
					return usageError{fmt.Errorf("--path: %.300q is no store path or hash part", path)}
				}
				patient.Path = target.Part.String()
			}
			out := cmd.OutOrStdout()
			checks := []doctor.Check{}
			for c := range patient.Examine(cmd.Context()) {
				checks = append(checks, c)
				if !o.json {
					printCheck(out, &c)
				}
			}
			if o.json {
				if err := printJSON(out, checks); err != nil {
					return err
				}
			}
			return conclude(checks)
		},
	}
	c.Flags().StringVar(&path, "path", "", "the store path, or hash part, to fetch as a test (default a small one that this node shares)")
	completeFlag(c, "path", completePaths)
	return c
}

// newHTTPClient speaks with substituters as Nix does: compressed only where the
// URL says so.
func newHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableCompression: true, ResponseHeaderTimeout: answerTimeout,
	}}
}

// marks are what stands before a finding, each with its colour (ECMA-48).
var marks = map[doctor.Verdict]struct{ text, colour string }{
	doctor.OK:      {"ok", "32"},
	doctor.Skipped: {"-", "2"},
	doctor.Warning: {"warn", "33"},
	doctor.Failed:  {"FAIL", "31"},
}

func printCheck(w io.Writer, c *doctor.Check) {
	const indent = 27
	mark := marks[c.Verdict]
	fmt.Fprintf(w, "%s%s %-19s ", coloured(w, mark.text, mark.colour), strings.Repeat(" ", 4-len(mark.text)), c.Name)
	lines := []string{printable(c.Finding)}
	if isTerminal(w) {
		lines = wrap(lines[0], max(width(w)-indent, 20))
	}
	fmt.Fprintln(w, strings.Join(lines, "\n"+strings.Repeat(" ", indent-2)))
	if c.Remedy != "" {
		// A remedy is often to be copied: it stays on one line.
		fmt.Fprintf(w, "%*s-> %s\n", indent-2, "", printable(c.Remedy))
	}
}

// coloured colours text where w is a terminal whose user wants colours
// (https://no-color.org).
func coloured(w io.Writer, text, colour string) string {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func conclude(checks []doctor.Check) error {
	for _, c := range checks {
		switch {
		case c.Verdict != doctor.Failed:
		case c.Name == "daemon":
			return control.ErrUnreachable
		default:
			return errIll
		}
	}
	return nil
}
