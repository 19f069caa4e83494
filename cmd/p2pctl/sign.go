package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// maxListed is how many paths a warning lists; --json has them all.
const maxListed = 10

// signOptions are the flags of sign.
type signOptions struct {
	key string
	// store is where the files of the store are.
	store string
}

// signResult is the JSON of sign.
type signResult struct {
	PublicKey string       `json:"publicKey"`
	Paths     []signedPath `json:"paths"`
	// Hint says what is to be done for the paths to be shared.
	Hint string `json:"hint,omitempty"`
}

// The states of a path. One that was signed by the same key before is not signed
// again.
const (
	stateSigned  = "signed"
	stateAlready = "already"
	stateSkipped = "skipped"
	stateFailed  = "failed"
)

// signedPath is what became of one path.
type signedPath struct {
	Path  string `json:"path"`
	State string `json:"state"`
	// Reason says why it was skipped, or has failed.
	Reason string `json:"reason,omitempty"`
	// NotShared says why peers do not get it though it is signed.
	NotShared string `json:"notShared,omitempty"`
	// Unaccepted marks a path that was skipped and that no key has signed which
	// the node trusts or shares for.
	Unaccepted bool `json:"unaccepted,omitempty"`
}

func newSign(o *options) *cobra.Command {
	var s signOptions
	c := &cobra.Command{
		Use:     "sign --key FILE PATH...",
		Short:   "sign what this machine has built, for peers that trust the key",
		Example: "  p2pctl sign --key example.org-1.secret $(readlink result)",
		Long: "Sign store paths, and all that they need, as far as this machine has built it or\n" +
			"it is a source whose content address proves it. What came from a cache has the\n" +
			"cache's signature and is skipped; derivations are never signed. It warns of\n" +
			"everything else that peers would miss.\n\n" +
			"The secret key stays in p2pctl. It reads every path that it signs, and signs\n" +
			"nothing if the files of one are not those that Nix has registered. nar-p2pd\n" +
			"checks the signatures, keeps them in its own state, and shares the paths if the\n" +
			"key is one of share.public_keys.",
		Args:              usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completePaths,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := parsePaths(args)
			if err != nil {
				return err
			}
			if s.key == "" {
				return usageError{errors.New("--key FILE is needed: p2pctl key generate makes one")}
			}
			key, err := readKey(cmd, s.key)
			if err != nil {
				return err
			}
			return sign(cmd, o, &signer{
				client: o.client(), key: key, store: s.store,
				bar: newCounter(cmd.ErrOrStderr(), o.json, "reading"), asked: make(map[nix.StorePath]struct{}),
			}, paths)
		},
	}
	c.Flags().StringVar(&s.key, "key", "", "the file with the secret key")
	c.Flags().StringVar(&s.store, "store", nix.StoreDir, "where the files of the store are")
	completeFlag(c, "key", completeFiles)
	completeFlag(c, "store", completeFiles)
	return c
}

// sign signs the closure of paths, prints what became of it, and returns an
// error if that is not what was wanted.
func sign(cmd *cobra.Command, o *options, s *signer, paths []nix.StorePath) error {
	err := s.walk(cmd.Context(), paths)
	if err == nil {
		err = s.submit(cmd.Context())
	}
	if err := errors.Join(err, s.bar.Close()); err != nil {
		return err
	}
	result := signResult{PublicKey: s.key.Public().String(), Paths: s.results, Hint: s.hint}
	if o.json {
		err = printJSON(cmd.OutOrStdout(), result)
	} else {
		printSigned(cmd, &result)
	}
	if failed := s.failed; err == nil && failed > 0 {
		err = fmt.Errorf("%d signatures were not kept", failed)
	}
	return err
}

// printSigned prints what was done to standard output, and to standard error
// what is amiss.
func printSigned(cmd *cobra.Command, result *signResult) {
	counts, reasons := make(map[string]int), make(map[string]int)
	var missing, withheld []string
	for _, p := range result.Paths {
		counts[p.State]++
		switch p.State {
		case stateSigned:
			cmd.Printf("%s: signed\n", p.Path)
		case stateSkipped:
			reasons[p.Reason]++
		case stateFailed:
			cmd.PrintErrf("p2pctl: %s: %s\n", p.Path, p.Reason)
		}
		if p.Unaccepted {
			missing = append(missing, p.Path+": "+p.Reason)
		}
		if p.NotShared != "" && result.Hint == "" {
			withheld = append(withheld, p.Path+": "+p.NotShared)
		}
	}
	cmd.Printf("%d signed, %d signed before, %d skipped\n", counts[stateSigned], counts[stateAlready], counts[stateSkipped])
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		cmd.Printf("  %d: %s\n", reasons[reason], reason)
	}
	warn(cmd, "peers will miss paths that have no signature of a key that this node trusts or shares for", missing)
	warn(cmd, "signed, but not shared", withheld)
	if result.Hint != "" {
		cmd.PrintErrf("p2pctl: hint: %s\n", result.Hint)
	}
}

func warn(cmd *cobra.Command, what string, paths []string) {
	if len(paths) == 0 {
		return
	}
	cmd.PrintErrf("p2pctl: warning: %s:\n", what)
	for _, path := range paths[:min(maxListed, len(paths))] {
		cmd.PrintErrf("  %s\n", path)
	}
	if more := len(paths) - maxListed; more > 0 {
		cmd.PrintErrf("  and %d more; --json lists them all\n", more)
	}
}

// newCounter returns a count of paths, invisible unless stderr is a terminal.
func newCounter(stderr io.Writer, asJSON bool, what string) *progressbar.ProgressBar {
	return progressbar.NewOptions(-1,
		progressbar.OptionSetWriter(stderr),
		progressbar.OptionSetVisibility(isTerminal(stderr) && !asJSON),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionClearOnFinish(),
	)
}
