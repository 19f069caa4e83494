package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Nix is a real Nix with a store of its own, `local?root=Root`, and
// configuration, caches and home that nothing else uses.
type Nix struct {
	// Root is the store's real root: files lie under Root/nix/store.
	Root string

	lab  *Lab
	cfg  NixConfig
	conf string
	env  []string
}

// NixConfig is what a Nix client is told.
type NixConfig struct {
	// Substituters in order. None means that nothing is substituted.
	Substituters []string
	// TrustedKeys replaces Nix's built-in key where it is not empty.
	TrustedKeys []string
	// Hook is the program that Nix runs after each build, see Build.
	Hook string
	// BuildTime bounds a Build; 0 means Patience.
	BuildTime time.Duration
	// Host is where Nix runs; nil means on this machine's loopback.
	Host *Host
	// Bin is the folder of Nix's programs, as of a Version; "" means those of
	// $PATH.
	Bin string
	// Settings are further lines of nix.conf.
	Settings []string
}

// Nix makes an empty store.
func (l *Lab) Nix(name string, cfg NixConfig) *Nix {
	l.t.Helper()
	dir := l.Dir(name)
	n := &Nix{
		Root: filepath.Join(dir, "root"),
		lab:  l,
		cfg:  cfg,
		conf: filepath.Join(dir, "conf", "nix.conf"),
		env: []string{
			"PATH=" + cfg.Bin + ":" + os.Getenv("PATH"),
			"HOME=" + filepath.Join(dir, "home"),
			"XDG_CACHE_HOME=" + filepath.Join(dir, "cache"),
			"NIX_CONF_DIR=" + filepath.Join(dir, "conf"),
			"NIX_STATE_DIR=" + filepath.Join(dir, "state"),
			"NIX_USER_CONF_FILES=",
			"NIX_REMOTE=local?root=" + filepath.Join(dir, "root"),
			"TMPDIR=" + dir,
		},
	}
	if l.certificate != "" {
		n.env = append(n.env, "NIX_SSL_CERT_FILE="+l.certificate)
	}
	if err := os.MkdirAll(n.Root, 0o755); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	n.Use(cfg.Substituters...)
	return n
}

// Use replaces the substituters.
func (n *Nix) Use(substituters ...string) {
	n.lab.t.Helper()
	conf := []string{
		"build-users-group =",
		"sandbox = false",
		"experimental-features = nix-command",
		"connect-timeout = 5",
		"substituters = " + strings.Join(substituters, " "),
	}
	if len(n.cfg.TrustedKeys) > 0 {
		conf = append(conf, "trusted-public-keys = "+strings.Join(n.cfg.TrustedKeys, " "))
	}
	if n.cfg.Hook != "" {
		conf = append(conf, "post-build-hook = "+n.cfg.Hook)
	}
	conf = append(conf, n.cfg.Settings...)
	n.lab.write(n.conf, strings.Join(conf, "\n")+"\n")
}

// Init makes the store's database, which Nix otherwise does at its first use.
func (n *Nix) Init() {
	n.lab.t.Helper()
	n.MustRun("nix-store", "--init")
}

func (l *Lab) write(path, text string) {
	l.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
}

// Run runs a Nix program and returns its standard output. Where it fails, the
// error holds what it said.
func (n *Nix) Run(ctx context.Context, program string, args ...string) (string, error) {
	out, _, err := n.RunBoth(ctx, program, args...)
	return out, err
}

// RunBoth is Run that also returns standard error, on which Nix says what it
// does.
func (n *Nix) RunBoth(ctx context.Context, program string, args ...string) (stdout, stderr string, err error) {
	cmd := n.cfg.Host.Command(ctx, filepath.Join(n.cfg.Bin, program), args...)
	cmd.Env = n.env
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // It was killed.
		}
		return out.String(), said.String(), fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, said.String())
	}
	return out.String(), said.String(), nil
}

// MustRun is Run, and the test fails where it does.
func (n *Nix) MustRun(program string, args ...string) string {
	n.lab.t.Helper()
	out, err := n.Run(n.lab.Context(), program, args...)
	if err != nil {
		n.lab.t.Fatal(err)
	}
	return out
}

// Realise substitutes path and everything it references.
func (n *Nix) Realise(path nix.StorePath) error {
	_, err := n.Run(n.lab.Context(), "nix-store", "--realise", path.String())
	return err
}

// Import copies the closure of path from a binary cache into the store.
func (n *Nix) Import(cacheDir string, path nix.StorePath) {
	n.lab.t.Helper()
	n.MustRun("nix", "copy", "--from", "file://"+cacheDir, path.String())
}

// cacheInfo is that of cache.nixos.org. Nix writes none of the last two lines
// and takes a missing priority for the highest.
const cacheInfo = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"

// Export copies the closure of path to a new binary cache in dir.
func (n *Nix) Export(dir string, path nix.StorePath) {
	n.lab.t.Helper()
	n.MustRun("nix", "copy", "--to", "file://"+dir+"?compression=zstd", path.String())
	n.lab.write(filepath.Join(dir, "nix-cache-info"), cacheInfo)
}

// Verify asks Nix to check contents and signatures of path's closure.
func (n *Nix) Verify(path nix.StorePath) {
	n.lab.t.Helper()
	n.MustRun("nix", "store", "verify", "--recursive", "--sigs-needed", "1", path.String())
}

// Closure lists the store paths that path needs, itself included.
func (n *Nix) Closure(path nix.StorePath) []string {
	n.lab.t.Helper()
	return strings.Fields(n.MustRun("nix-store", "--query", "--requisites", path.String()))
}

// Has reports whether path is valid in the store.
func (n *Nix) Has(path nix.StorePath) bool {
	_, err := n.Run(n.lab.Context(), "nix-store", "--check-validity", path.String())
	return err == nil
}

// Real returns where the files of path lie.
func (n *Nix) Real(path nix.StorePath) string {
	return filepath.Join(n.Root, path.String())
}

// Remove removes the store and all that belongs to it.
func (n *Nix) Remove() {
	n.lab.t.Helper()
	if err := removeStore(filepath.Dir(n.Root)); err != nil {
		n.lab.t.Fatalf("lab: %v", err)
	}
}
