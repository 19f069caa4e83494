package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// fetchResult is the JSON of fetch.
type fetchResult struct {
	StorePath string `json:"storePath"`
	NARHash   string `json:"narHash"`
	NARSize   int64  `json:"narSize"`
	// Output is the file or directory that was written.
	Output string `json:"output"`
}

// destination is where fetch puts a NAR: one of the two is set.
type destination struct {
	file   string
	unpack string
}

func newFetch(o *options) *cobra.Command {
	var to destination
	c := &cobra.Command{
		Use:     "fetch PATH {-o FILE | --unpack DIR}",
		Short:   "fetch the NAR of a store path, or what is in it",
		Example: "  p2pctl fetch /nix/store/…-hello-2.12.1 -o hello.nar\n  p2pctl fetch /nix/store/…-hello-2.12.1 --unpack hello",
		Long: "Fetch the NAR of a store path (or hash part) through the node, from peers or\n" +
			"caches, without touching the Nix store.\n\n" +
			"The record's signature is checked by nar-p2pd; p2pctl itself checks the bytes\n" +
			"against the record's NAR hash and size. FILE or DIR appears only once they are\n" +
			"right; with -o - the bytes go to standard output as they come, and the exit code\n" +
			"tells.",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: once(completePaths),
		RunE: func(cmd *cobra.Command, args []string) error {
			part, err := to.check(args[0], o.json)
			if err != nil {
				return usageError{err}
			}
			return fetch(cmd, o, part, to)
		},
	}
	c.Flags().StringVarP(&to.file, "output", "o", "", "write the NAR to this file, - for standard output")
	c.Flags().StringVar(&to.unpack, "unpack", "", "unpack the NAR to this new directory (or file, where it is of one)")
	completeFlag(c, "output", completeFiles)
	completeFlag(c, "unpack", completeFiles)
	return c
}

// check checks the command line and returns the hash part of the path in it.
func (d destination) check(path string, asJSON bool) (nix.HashPart, error) {
	if (d.file == "") == (d.unpack == "") {
		return nix.HashPart{}, errors.New("either -o FILE or --unpack DIR is needed")
	}
	if d.file == "-" && asJSON {
		return nix.HashPart{}, errors.New("--json and -o - both write to standard output")
	}
	target, err := control.ParseTarget(path)
	if err != nil || target.IsHash {
		return nix.HashPart{}, fmt.Errorf("%.300q is no store path or hash part", path)
	}
	return target.Part, nil
}

// checkFree wants the destination to be possible before anything is fetched.
func (d destination) checkFree() error {
	if d.file == "-" {
		return nil
	}
	path := filepath.Clean(d.file + d.unpack)
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case d.unpack != "":
		return fmt.Errorf("%s exists already", path)
	case info.IsDir():
		return fmt.Errorf("%s is a directory: name a file in it", path)
	default:
		return nil
	}
}

func fetch(cmd *cobra.Command, o *options, part nix.HashPart, to destination) error {
	if err := to.checkFree(); err != nil {
		return err
	}
	ctx := cmd.Context()
	client := o.client()
	info, err := client.Narinfo(ctx, part)
	if err != nil {
		return fmt.Errorf("narinfo of %s: %w", part, err)
	}
	body, err := client.NAR(ctx, info)
	if err != nil {
		return fmt.Errorf("NAR of %s: %w", info.StorePath, err)
	}
	defer body.Close()
	bar := newBar(cmd.ErrOrStderr(), o.json, info)
	err = to.write(ctx, cmd.OutOrStdout(), io.TeeReader(newVerifier(body, info), bar))
	if err := errors.Join(err, bar.Close()); err != nil {
		return fmt.Errorf("NAR of %s: %w", info.StorePath, err)
	}
	return printFetched(cmd, o, info, to)
}

// newBar returns a progress bar, invisible unless stderr is a terminal.
func newBar(stderr io.Writer, asJSON bool, info *narinfo.Info) *progressbar.ProgressBar {
	return progressbar.NewOptions64(info.NARSize,
		progressbar.OptionSetWriter(stderr),
		progressbar.OptionSetVisibility(isTerminal(stderr) && !asJSON),
		progressbar.OptionSetDescription(info.StorePath.Name()),
		progressbar.OptionShowBytes(true),
		progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish(),
	)
}

func printFetched(cmd *cobra.Command, o *options, info *narinfo.Info, to destination) error {
	result := fetchResult{
		StorePath: info.StorePath.String(),
		NARHash:   info.NARHash.String(),
		NARSize:   info.NARSize,
		Output:    to.file + to.unpack,
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), result)
	}
	if to.file != "-" {
		cmd.Printf("%s\n  %s, %d bytes\n  -> %s\n", result.StorePath, result.NARHash, result.NARSize, result.Output)
	}
	return nil
}

func (d destination) write(ctx context.Context, stdout io.Writer, r io.Reader) error {
	switch {
	case d.unpack != "":
		return unpackTo(ctx, r, d.unpack)
	case d.file == "-":
		_, err := io.Copy(stdout, r)
		return err
	default:
		return writeFile(r, d.file)
	}
}

// writeFile has the whole of r in the file name, or leaves name as it was.
func writeFile(r io.Reader, name string) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*.part")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	// Temporary files are for their owner alone; what was fetched is not secret.
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// unpackTo has the tree in r at dest, or nothing.
func unpackTo(ctx context.Context, r io.Reader, dest string) error {
	// In the same directory, as a read-only tree can be renamed only there.
	dest = filepath.Clean(dest)
	unfinished := filepath.Join(filepath.Dir(dest), fmt.Sprintf(".%s.%d.part", filepath.Base(dest), os.Getpid()))
	// Unpack reads to the end, where the verifier has its say, and takes
	// everything back on an error.
	if err := nar.Unpack(ctx, r, unfinished); err != nil {
		return err
	}
	return os.Rename(unfinished, dest)
}
