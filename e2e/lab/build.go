package lab

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Build builds the Nix expression in a file, with nix-build and its options, in
// the store of n.
//
// A build needs its store to lie at /nix/store, and so bubblewrap puts it there
// for Nix, for the builder, and for the hook that NixConfig.Hook names. NAR_P2P_SOCKET
// leads what that hook runs to the daemon d, if there is one.
func (n *Nix) Build(d *Daemon, file string, options ...string) (nix.StorePath, error) {
	n.lab.t.Helper()
	store := filepath.Join(n.Root, "nix")
	if err := os.MkdirAll(store, 0o755); err != nil {
		n.lab.t.Fatalf("lab: %v", err)
	}
	args := []string{
		"--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--bind", store, "/nix", "--die-with-parent",
		"nix-build", "--no-out-link", file,
	}
	cmd := n.cfg.Host.Command(n.lab.Within(cmp.Or(n.cfg.BuildTime, Patience)), "bwrap", append(args, options...)...)
	// The last of each name counts.
	cmd.Env = append(slices.Clone(n.env), "NIX_REMOTE=local", "NIX_STATE_DIR=/nix/var/nix", "PATH="+n.lab.bin+":"+os.Getenv("PATH"))
	if d != nil {
		cmd.Env = append(cmd.Env, "NAR_P2P_SOCKET="+d.socket())
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nix.StorePath{}, fmt.Errorf("nix-build %s: %w\n%s", file, err, said.String())
	}
	return nix.ParseStorePath(strings.TrimSpace(out.String()))
}
