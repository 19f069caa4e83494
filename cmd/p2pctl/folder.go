package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/invitation"
	"github.com/nar-p2p/nar-p2p/internal/psk"
)

// folder is where the settings of a network go, if they are to be written.
type folder struct {
	dir   string
	write bool
	// invites is set where the invitation is new to whoever asks.
	invites bool
}

func (f *folder) addFlags(c *cobra.Command) {
	c.Flags().BoolVar(&f.write, "write", false, "write config.toml and the key, where there are none yet")
	c.Flags().StringVar(&f.dir, "dir", "", "the folder for them (default /etc/nar-p2p for root, else nar-p2p in $XDG_CONFIG_HOME or ~/.config)")
	completeFlag(c, "dir", completeFiles)
}

// networkResult is the JSON of network create, join and show.
type networkResult struct {
	Network    string `json:"network"`
	Invitation string `json:"invitation"`
	// Secret is true where the invitation has a key.
	Secret    bool     `json:"secret"`
	Bootstrap []string `json:"bootstrap"`
	// Config is the text for config.toml, PSK that of the file that it names.
	Config string `json:"config,omitempty"`
	PSK    string `json:"psk,omitempty"`
	// Written are the files that were.
	Written []string `json:"written,omitempty"`
}

func networkResultOf(invited *invitation.Invitation, written []string) *networkResult {
	r := &networkResult{
		Network: invited.Network, Invitation: invited.String(), Secret: invited.Secret(), Bootstrap: []string{}, Written: written,
	}
	for _, addr := range invited.Bootstrap {
		r.Bootstrap = append(r.Bootstrap, addr.String())
	}
	if invited.Secret() {
		r.PSK = psk.Format(invited.Key)
	}
	return r
}

// give prints the settings of a network, or writes them.
func (f *folder) give(cmd *cobra.Command, o *options, invited *invitation.Invitation) error {
	if f.dir == "" {
		dir, err := config.Folder(os.Environ())
		if err != nil {
			return err
		}
		f.dir = dir
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return err
	}
	if strings.ContainsFunc(dir, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return usageError{fmt.Errorf("--dir %q: has characters that cannot be printed", dir)}
	}
	files := filesOf(invited, dir)
	result := networkResultOf(invited, nil)
	result.Config = files[len(files)-1].text
	if f.write {
		if err := writeAll(dir, files); err != nil {
			return err
		}
		for _, file := range files {
			result.Written = append(result.Written, file.path)
		}
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), result)
	}
	f.print(cmd, invited, files)
	return nil
}

// note tells what is to be known of an invitation.
func note(cmd *cobra.Command, invited *invitation.Invitation) {
	if invited.Secret() {
		cmd.PrintErrln("p2pctl: the invitation and the key are secrets: whoever has one of them can join")
	}
	if len(invited.Bootstrap) == 0 {
		cmd.PrintErrln("p2pctl: no bootstrap address is known: nodes will find each other on one local network only; see network create --bootstrap")
	}
}

func (f *folder) print(cmd *cobra.Command, invited *invitation.Invitation, files []settingsFile) {
	if !f.write {
		if f.invites {
			cmd.Printf("# Invitation for others: %s\n\n", invited)
		}
		for _, file := range files {
			cmd.Print(file.printed())
		}
		note(cmd, invited)
		cmd.PrintErrf("p2pctl: put the above into %s, or let --write do it\n", files[len(files)-1].path)
		return
	}
	for _, file := range files {
		cmd.Println("wrote", file.path)
	}
	if f.invites {
		cmd.Println("invitation", invited)
	}
	note(cmd, invited)
	if os.Geteuid() == 0 && invited.Secret() {
		cmd.PrintErrf("p2pctl: only root can read %s: if nar-p2pd runs as another user, give it that: chown\n", files[0].path)
	}
	cmd.PrintErrln("p2pctl: restart nar-p2pd to be in the network")
}

// settingsFile is a file to be written.
type settingsFile struct {
	path, text string
	mode       fs.FileMode
	// comment makes the text one for printing.
	comment bool
}

// printed returns what a person is shown of a file: all of it together is good
// TOML.
func (s *settingsFile) printed() string {
	if !s.comment {
		return s.text
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# The file %s, mode %#o:\n", s.path, s.mode)
	for line := range strings.Lines(s.text) {
		b.WriteString("#   " + line)
	}
	return b.String() + "\n"
}

// filesOf returns the files that make a node a member of the network; the last is
// config.toml.
func filesOf(invited *invitation.Invitation, dir string) []settingsFile {
	var files []settingsFile
	var b strings.Builder
	fmt.Fprintf(&b, "network = %s\n\n[p2p]\nbootstrap = [\n", strconv.Quote(invited.Network))
	for _, addr := range invited.Bootstrap {
		fmt.Fprintf(&b, "  %s,\n", strconv.Quote(addr.String()))
	}
	b.WriteString("]\n")
	if invited.Secret() {
		key := settingsFile{path: filepath.Join(dir, "psk"), text: psk.Format(invited.Key), mode: 0o600, comment: true}
		files = append(files, key)
		fmt.Fprintf(&b, "psk_file = %s\n", strconv.Quote(key.path))
	}
	return append(files, settingsFile{path: filepath.Join(dir, "config.toml"), text: b.String(), mode: 0o644})
}

// writeAll writes the files, or none of them where one is there already and has
// another text.
func writeAll(dir string, files []settingsFile) error {
	for _, file := range files {
		text, err := os.ReadFile(file.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !bytes.Equal(text, []byte(file.text)):
			return fmt.Errorf("%s is there already, and nothing was written: without --write the lines are printed, to be put there by hand", file.path)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		if err := writeNew(&file); err != nil {
			return err
		}
	}
	return nil
}

// writeNew brings a file into being. One that is there is left as it is.
func writeNew(file *settingsFile) error {
	f, err := os.OpenFile(file.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, file.mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(file.text)
	return errors.Join(err, f.Sync(), f.Close())
}

// readPSK reads the network's key, with the rights of who calls p2pctl: the
// daemon does not give it away.
func readPSK(path string) ([]byte, error) {
	key, err := psk.Load(path)
	if err != nil {
		return nil, fmt.Errorf("the invitation needs the key: %w", err)
	}
	return key, nil
}
