// Package browser tests the dashboard of a real daemon in a real Chromium, while
// a NAR comes from two other daemons. What is to be seen on the page is in
// dashboard.test.mjs; screenshots of the last run are in screenshots/.
package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// timeout is for all that the browser does.
const timeout = 3 * time.Minute

// Two providers send at most so much each, so that there is time to look.
const (
	largeSize   = 20 << 20
	uploadLimit = "3MiB/s"
)

func TestDashboard(t *testing.T) {
	install(t)
	l := lab.New(t)
	key, err := narinfo.GenerateSecretKey("team-1")
	if err != nil {
		t.Fatal(err)
	}
	cache := l.Dir("cache")
	made, err := closure.Generate(t.Context(), cache, closure.Config{Paths: 3, Seed: 1, Key: key, LargeSize: largeSize})
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{key.Public().String()}
	shown := l.Dir("upstream")
	if err := os.CopyFS(shown, os.DirFS(cache)); err != nil {
		t.Fatal(err)
	}
	upstream := l.Upstream(shown)
	upstream.RemoveNARs()

	bootstrap := l.Daemon("bootstrap", lab.DaemonConfig{})
	for _, name := range []string{"first", "second"} {
		provider := l.Daemon(name, lab.DaemonConfig{
			Bootstrap: bootstrap, Cache: cache, Keys: keys, Flags: []string{"--p2p-upload-limit=" + uploadLimit},
		})
		provider.WaitAnnounced(len(made.Records))
	}
	consumer := l.Daemon("consumer", lab.DaemonConfig{Bootstrap: bootstrap, Upstreams: []string{upstream.URL}, Keys: keys})
	large := made.Records[0] // in which the large file is
	told, err := consumer.Ctl("--json", "dashboard")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard control.Dashboard
	if err := json.Unmarshal([]byte(told), &dashboard); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "--test", "--test-reporter=spec", "dashboard.test.mjs")
	cmd.Env = append(os.Environ(),
		"DASHBOARD="+dashboard.URL,
		"STORE_PATH="+large.StorePath.String(),
		"NARINFO=/"+large.StorePath.HashPart().String()+".narinfo",
		"NAR=/"+narinfo.NARURL(large.StorePath.HashPart(), large.NARHash),
		"CHROMIUM="+chromium(t),
	)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "ℹ skipped 0") {
		t.Logf("%s", out)
	} else {
		t.Errorf("something was skipped:\n%s", out)
	}
	if s := consumer.Status().Sharing; s.Paused {
		t.Errorf("the daemon is left with %+v", s)
	}
	checkStats(t, consumer, large.NARSize)
}

// checkStats wants what the page showed from p2pctl as well.
func checkStats(t *testing.T, d *lab.Daemon, size int64) {
	t.Helper()
	out, err := d.Ctl("--json", "stats")
	if err != nil {
		t.Fatal(err)
	}
	var stats control.Stats
	if err := json.Unmarshal([]byte(out), &stats); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, day := range stats.Days {
		sum += day.LAN // all peers are on this machine
	}
	if sum != size {
		t.Errorf("%d bytes came from the local network, want %d: %s", sum, size, out)
	}
}

// install brings Playwright, at the version of package-lock.json.
func install(t *testing.T) {
	t.Helper()
	want, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	stamp := filepath.Join("node_modules", ".installed")
	if got, err := os.ReadFile(stamp); err == nil && bytes.Equal(got, want) {
		return
	}
	if out, err := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts").CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	if err := os.WriteFile(stamp, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

// chromium returns the browser, which has two names.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("there is no chromium: make deps installs it")
	return ""
}
