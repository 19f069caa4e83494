package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

// findResult is the JSON of find for one target.
type findResult struct {
	Target string `json:"target"`
	control.Found
	Providers []control.Provider `json:"providers"`
	// Error is why there was nothing to look for.
	Error string `json:"error,omitempty"`
}

func newFind(o *options) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:     "find PATH|NAR-HASH|CID...",
		Short:   "find the peers that provide store paths",
		Example: "  p2pctl find /nix/store/…-hello-2.12.1\n  ipfs routing findprovs $(p2pctl find --json /nix/store/…-hello-2.12.1 | jq -r '.[0].cid')",
		Long: "Find the peers that provide the NARs of store paths. A target is a store path,\n" +
			"its hash part, a NAR hash (sha256:..., sha256-..., or 52 base-32 characters) or\n" +
			"the CID of one.\n\n" +
			"The CID that is printed can be looked up by every IPFS tool, such as:\n" +
			"ipfs routing findprovs CID",
		Args:              usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completePaths,
		RunE: func(cmd *cobra.Command, args []string) error {
			if timeout <= 0 {
				return usageError{fmt.Errorf("--timeout %v: is not above 0", timeout)}
			}
			for _, arg := range args {
				if _, err := control.ParseTarget(arg); err != nil {
					return usageError{err}
				}
			}
			return findAll(cmd, o, args, timeout)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 20*time.Second, "how long to look for each target")
	return c
}

// findAll looks for the targets one after the other, and prints providers as
// they turn up. It is errNotFound if a target has none.
func findAll(cmd *cobra.Command, o *options, targets []string, timeout time.Duration) error {
	client := o.client()
	results := make([]findResult, 0, len(targets))
	var missing []string
	for _, target := range targets {
		result, err := findOne(cmd, o, client, target, timeout)
		if err != nil {
			err = fmt.Errorf("%s: %w", target, err)
			if len(targets) == 1 || exitCode(err) != exitNotFound {
				return err
			}
			// The others may be found.
			cmd.PrintErrf("p2pctl: %v\n", err)
			result.Error = err.Error()
		}
		if len(result.Providers) == 0 {
			missing = append(missing, target)
		}
		results = append(results, *result)
	}
	if o.json {
		if err := printJSON(cmd.OutOrStdout(), results); err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		err := fmt.Errorf("no provider of %s: %w", strings.Join(missing, ", "), errNotFound)
		return advice{err, "p2pctl status tells how many peers are connected, p2pctl explain PATH what upstreams say of a path"}
	}
	return nil
}

func findOne(cmd *cobra.Command, o *options, client *control.Client, target string, timeout time.Duration) (*findResult, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	result := &findResult{Target: target, Providers: []control.Provider{}}
	err := client.Find(ctx, target, func(event control.FindEvent) error {
		switch {
		case event.Found != nil:
			result.Found = *event.Found
			if !o.json {
				printFound(cmd, target, event.Found)
			}
		case event.Provider != nil:
			result.Providers = append(result.Providers, *event.Provider)
			if !o.json {
				printProvider(cmd, event.Provider)
			}
		}
		return nil
	})
	// Out of time, but not interrupted: what was found is the result.
	if errors.Is(err, context.DeadlineExceeded) && cmd.Context().Err() == nil && result.CID != "" {
		return result, nil
	}
	return result, err
}

func printFound(cmd *cobra.Command, target string, found *control.Found) {
	cmd.Println(target)
	if found.StorePath != "" && found.StorePath != target {
		cmd.Println("  path", found.StorePath)
	}
	if found.NARHash != "" {
		cmd.Println("  hash", found.NARHash)
	}
	cmd.Println("  cid ", found.CID)
}

func printProvider(cmd *cobra.Command, p *control.Provider) {
	self := ""
	if p.Self {
		self = " (this node)"
	}
	cmd.Printf("  peer %s%s\n", p.ID, self)
	for _, address := range p.Addresses {
		cmd.Println("      ", printable(address))
	}
}
