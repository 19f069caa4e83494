package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// systemLink leads to the system that runs, on NixOS.
const systemLink = "/run/current-system"

// health is the JSON of health.
type health struct {
	// Paths are those of the closure, the rarest first.
	Paths []*control.HealthPath `json:"paths"`
	// Alone counts the paths that no peer is known to have, AloneBytes their NARs.
	Alone      int   `json:"alone"`
	AloneBytes int64 `json:"aloneBytes"`
}

func newHealth(o *options) *cobra.Command {
	var alone bool
	var all bool
	c := &cobra.Command{
		Use:   "health [PATH...]",
		Short: "tell how many peers have each path of a closure",
		Long: "Tell how many peers have store paths and all that they refer to, the rarest first:\n" +
			"who would still have it if the cache were gone? A PATH may be a link into the store,\n" +
			"such as a profile or a result; without any it is " + systemLink + ".\n\n" +
			"Connected peers are asked and the DHT is searched, a few seconds for each path. A\n" +
			"search finds about 20 peers at most. Strangers are asked about public paths only.\n" +
			"Where nobody has a record of some path the exit code is 4.",
		Example:           "  p2pctl health\n  p2pctl health ~/.nix-profile --all",
		ValidArgsFunction: completeLinks,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{systemLink}
				if _, err := os.Lstat(systemLink); err != nil {
					return usageError{fmt.Errorf("%s is not there, as it is on NixOS: name a path, such as ~/.nix-profile", systemLink)}
				}
			}
			paths, err := resolvePaths(args)
			if err != nil {
				return err
			}
			h := &health{Paths: []*control.HealthPath{}}
			err = countPaths(cmd, o, func(count func() error) error {
				return o.client().Health(cmd.Context(), paths, alone, func(p *control.HealthPath) error {
					h.add(p)
					return count()
				})
			})
			if err != nil {
				return err
			}
			slices.SortStableFunc(h.Paths, func(a, b *control.HealthPath) int {
				return cmp.Or(cmp.Compare(a.Providers, b.Providers), cmp.Compare(b.NARSize, a.NARSize), cmp.Compare(a.StorePath, b.StorePath))
			})
			if o.json {
				err = printJSON(cmd.OutOrStdout(), h)
			} else {
				err = h.print(cmd.OutOrStdout(), all)
			}
			if err != nil {
				return err
			}
			return recordless(h.notFound())
		},
	}
	c.Flags().BoolVar(&alone, "alone", false, "leave out what the paths refer to")
	c.Flags().BoolVar(&all, "all", false, "list all paths, and not just the rarest")
	return c
}

// resolvePaths parses store paths, and follows links into the store.
func resolvePaths(args []string) ([]nix.StorePath, error) {
	paths := make([]nix.StorePath, len(args))
	for i, arg := range args {
		text := arg
		if _, err := nix.ParseStorePath(arg); err != nil {
			resolved, err := filepath.EvalSymlinks(arg)
			if err != nil {
				return nil, usageError{fmt.Errorf("%.300q is neither a store path nor a link to one: %w", arg, err)}
			}
			text = topLevel(resolved)
		}
		path, err := nix.ParseStorePath(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("%.300q leads to %.300q: %w", arg, text, err)}
		}
		paths[i] = path
	}
	return paths, nil
}

// topLevel returns the store path that a file is in, or the file.
func topLevel(file string) string {
	rest, ok := strings.CutPrefix(file, nix.StoreDir+string(os.PathSeparator))
	if !ok {
		return file
	}
	name, _, _ := strings.Cut(rest, string(os.PathSeparator))
	return filepath.Join(nix.StoreDir, name)
}

func (h *health) add(p *control.HealthPath) {
	h.Paths = append(h.Paths, p)
	if p.Providers == 0 {
		h.Alone++
		h.AloneBytes += p.NARSize
	}
}

// notFound returns the paths of which nobody has a record.
func (h *health) notFound() (paths []string) {
	for _, p := range h.Paths {
		if p.NotFound {
			paths = append(paths, p.StorePath)
		}
	}
	return paths
}

// rarest is how many paths are listed without --all.
const rarest = 20

func (h *health) print(w io.Writer, all bool) error {
	listed := h.Paths
	if !all {
		listed = listed[:min(len(listed), rarest)]
	}
	t := table(w)
	fmt.Fprintln(t, "PROVIDERS\tSIZE\tHERE\tPATH\t")
	for _, p := range listed {
		providers := fmt.Sprint(p.Providers)
		if p.LAN > 0 {
			providers += fmt.Sprintf(" (%d lan)", p.LAN)
		}
		here := "-"
		if p.Present {
			here = "yes"
		}
		size := explain.Size(p.NARSize)
		if p.NotFound {
			size = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", providers, size, here, printable(p.StorePath), printable(p.Problem))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more := len(h.Paths) - len(listed); more > 0 {
		fmt.Fprintf(w, "%d more are less rare: see --all\n", more)
	}
	_, err := fmt.Fprintf(w, "%d of %d paths (%s) are with no peer that is known\n", h.Alone, len(h.Paths), explain.Size(h.AloneBytes))
	return err
}
