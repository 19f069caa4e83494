package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

const (
	// maxKeyFile bounds a key file in bytes: a name and 88 characters.
	maxKeyFile = 4 << 10
	// maxKeyName is the longest name that is given to a key, in bytes. It is
	// repeated in every signature.
	maxKeyName = 100
)

// keyResult is the JSON of key.
type keyResult struct {
	Name string `json:"name"`
	// PublicKey is for trust.public_keys, and Nix's trusted-public-keys.
	PublicKey string `json:"publicKey"`
	// SecretKeyFile is where the secret key is.
	SecretKeyFile string `json:"secretKeyFile"`
}

func newKey(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "key",
		Short: "make keys for signing, or show their public part",
		Args:  usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("no command: generate or show")}
		},
	}
	c.AddCommand(newKeyGenerate(o), newKeyShow(o))
	return c
}

func newKeyGenerate(o *options) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:     "generate NAME",
		Short:   "make a key for signing what this machine builds",
		Example: "  p2pctl key generate example.org-1",
		Long: "Make a key for signing what this machine builds, in the format of\n" +
			"nix-store --generate-binary-cache-key. NAME becomes part of every signature; it is\n" +
			"usual to number the keys of a team: example.org-1.\n\n" +
			"The secret key is written to FILE, which only its owner may read. A file that\n" +
			"exists is never overwritten. The public key is printed. nar-p2pd is not needed.",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkKeyName(args[0]); err != nil {
				return usageError{fmt.Errorf("key name %.200q: %w", args[0], err)}
			}
			if file == "" {
				file = args[0] + ".secret"
			}
			key, err := narinfo.GenerateSecretKey(args[0])
			if err != nil {
				return err
			}
			if err := writeKey(file, key); err != nil {
				return err
			}
			return printKey(cmd, o, key, file)
		},
	}
	c.Flags().StringVar(&file, "out", "", "write the secret key to this new file (default NAME.secret)")
	completeFlag(c, "out", completeFiles)
	return c
}

func newKeyShow(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "show FILE",
		Short:   "show the public key that belongs to a secret one",
		Example: "  p2pctl key show example.org-1.secret",
		Long: "Show the public key that belongs to the secret key in FILE, as it stands in\n" +
			"Nix's trusted-public-keys and in nar-p2pd's trust.public_keys and\n" +
			"share.public_keys. nar-p2pd is not needed.",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: once(completeFiles),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := readKey(cmd, args[0])
			if err != nil {
				return err
			}
			return printKey(cmd, o, key, args[0])
		},
	}
}

// checkKeyName is stricter than Nix, so that the name fits into every
// configuration file, record and file name.
func checkKeyName(name string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_+"
	switch {
	case name == "" || len(name) > maxKeyName:
		return fmt.Errorf("is not 1 to %d characters long", maxKeyName)
	case strings.Trim(name, allowed) != "" || strings.HasPrefix(name, "."):
		return errors.New("is not of letters, digits and . - _ +, not beginning with a dot")
	}
	return nil
}

// writeKey has the key in a new file, or nothing.
func writeKey(file string, key narinfo.SecretKey) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already: a key is never overwritten", file)
	}
	if err != nil {
		return err
	}
	// No line end, as Nix writes it.
	_, err = f.WriteString(key.Text())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}

// readKey reads a secret key, and warns where everybody may. No error repeats
// what is in the file.
func readKey(cmd *cobra.Command, file string) (narinfo.SecretKey, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = advice{err, "p2pctl key generate makes a key"}
	}
	if err != nil {
		return narinfo.SecretKey{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return narinfo.SecretKey{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return narinfo.SecretKey{}, err
	}
	key, err := parseKey(text)
	if err != nil {
		return narinfo.SecretKey{}, fmt.Errorf("%s: %w", file, err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		cmd.PrintErrf("p2pctl: warning: everybody can get at the secret key: chmod 600 %s\n", file)
	}
	return key, nil
}

func parseKey(text []byte) (narinfo.SecretKey, error) {
	if len(text) > maxKeyFile {
		return narinfo.SecretKey{}, fmt.Errorf("is no key: it is larger than %d bytes", maxKeyFile)
	}
	if _, err := narinfo.ParsePublicKey(strings.TrimSpace(string(text))); err == nil {
		return narinfo.SecretKey{}, errors.New("is a public key, and the secret one is needed")
	}
	key, err := narinfo.ParseSecretKey(string(text))
	// A file put together by hand may hold another key's public half.
	if err == nil && !key.Public().Verify("", key.Sign("")) {
		err = errors.New("the halves of the key do not belong together")
	}
	return key, err
}

func printKey(cmd *cobra.Command, o *options, key narinfo.SecretKey, file string) error {
	public := key.Public().String()
	if o.json {
		return printJSON(cmd.OutOrStdout(), keyResult{Name: key.Name, PublicKey: public, SecretKeyFile: file})
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), public)
	return err
}
