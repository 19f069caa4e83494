package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

// TestProfiles wants Go's profiles over the control socket, and nowhere else:
// they slow the daemon down, and tell what is in its memory.
func TestProfiles(t *testing.T) {
	binary, err := exec.LookPath("nar-p2pd")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "control.sock")
	p, err := start(binary, []string{
		"--substituter-listen=127.0.0.1:0", "--profile=off", "--upstream=", "--store-kind=none",
		"--control-socket=" + socket, "--state-dir=" + filepath.Join(dir, "state"),
	}, filepath.Join(dir, "log"), nil, "HOME="+dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	if err := p.await("READY=1"); err != nil {
		t.Fatal(err)
	}
	status, err := control.NewClient([]string{socket}).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	privileged := &http.Client{Transport: transport}
	for path, want := range map[string]string{
		"/debug/pprof/":                    "goroutine",
		"/debug/pprof/goroutine?debug=1":   "goroutine profile: total ",
		"/debug/pprof/heap?debug=1":        "heap profile: ",
		"/debug/pprof/profile?seconds=1":   "",
		"/debug/pprof/trace?seconds=0.001": "go 1.",
	} {
		if got := body(t, privileged, "http://localhost"+path, http.StatusOK); len(got) == 0 || !strings.Contains(string(got), want) {
			t.Errorf("%s over the control socket: %.200q, want %q in it", path, got, want)
		}
		body(t, http.DefaultClient, status.Substituter+path, http.StatusNotFound)
		body(t, http.DefaultClient, status.Substituter+"/dashboard"+path, http.StatusNotFound)
	}
}

// body returns what a URL has, which must answer with a status.
func body(t *testing.T, client *http.Client, url string, want int) []byte {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != want {
		t.Fatalf("%s: %s, %v, want status %d", url, response.Status, err, want)
	}
	return data
}
