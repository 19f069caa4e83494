package nixos

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// programs is the folder of both programs, built once for all tests.
var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if programs, err = os.MkdirTemp("", "nar-p2p"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(programs)
		if out, err := exec.Command("go", "build", "-o", programs, "../cmd/...").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// TestInstall wants the units that "make install" puts in place to be valid, and
// the daemon's sandbox to score at most 1.5 in the eyes of systemd.
func TestInstall(t *testing.T) {
	prefix := install(t, "linux", "")
	for _, file := range []string{
		"bin/nar-p2pd", "bin/p2pctl", "share/man/man8/nar-p2pd.8", "share/man/man1/p2pctl-status.1",
		"share/man/man5/nar-p2p.toml.5",
		"share/bash-completion/completions/p2pctl", "share/zsh/site-functions/_p2pctl",
		"share/fish/vendor_completions.d/p2pctl.fish", "lib/sysusers.d/nar-p2p.conf",
	} {
		if _, err := os.Stat(filepath.Join(prefix, file)); err != nil {
			t.Error(err)
		}
	}
	// The manager wants to have a place of its own, also to check what others are to run.
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	system, user := filepath.Join(prefix, "lib/systemd/system/nar-p2pd"), filepath.Join(prefix, "lib/systemd/user/nar-p2pd")
	for _, args := range [][]string{
		{"verify", "--man=no", system + ".service", system + ".socket"},
		{"verify", "--man=no", "--user", user + ".service", user + ".socket"},
		{"security", "--offline=true", "--threshold=15", system + ".service"},
	} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
		// What is not as it should be is a warning to verify, and no error.
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestInstallDarwin wants an agent that launchd can read, and no units.
func TestInstallDarwin(t *testing.T) {
	prefix := install(t, "darwin", t.TempDir())
	file, err := os.Open(filepath.Join(prefix, "share/nar-p2p/org.nar-p2p.nar-p2pd.plist"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var texts []string
	for decoder := xml.NewDecoder(file); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok {
			texts = append(texts, string(text))
		}
	}
	if all := strings.Join(texts, ""); !strings.Contains(all, `exec /opt/nar-p2p/bin/nar-p2pd 2>>"$HOME/`) || strings.Contains(all, "@") {
		t.Errorf("the agent does not name the program:\n%s", all)
	}
	if _, err := os.Stat(filepath.Join(prefix, "lib/systemd")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("units of systemd are installed: %v", err)
	}
}

// install returns where "make install" has put everything: in a prefix of the
// test's own, or in /opt/nar-p2p below destDir.
func install(t *testing.T, system, destDir string) string {
	t.Helper()
	prefix := "/opt/nar-p2p"
	if destDir == "" {
		prefix = filepath.Join(t.TempDir(), "prefix")
	}
	make := exec.CommandContext(t.Context(), "make", "-C", "..", "install-files",
		"OS="+system, "BIN="+programs, "PREFIX="+prefix, "DESTDIR="+destDir)
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	return filepath.Join(destDir, prefix)
}
