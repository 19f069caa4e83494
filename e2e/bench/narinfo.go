package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

const (
	// cachedNarinfos is how many different ones are asked for by turns.
	cachedNarinfos = 1000
	// connections are as many as Nix opens.
	connections = 25
	wrkSeconds  = 5
)

// narinfos are about those that the daemon has cached, beside nginx serving
// the same bytes as files.
func narinfos() []measurement {
	return []measurement{{
		lines: []line{
			{name: "narinfo-rate", unit: "requests/s", goal: goal{what: "ratio", target: 0.25, atLeast: true}},
			{name: "narinfo-p50", unit: "ms"},
			{name: "narinfo-p99", unit: "ms", goal: goal{what: "value", target: 5}},
		},
		setUp: setUpNarinfos,
	}}
}

func setUpNarinfos(l *lab.Lab) (func() ([]sample, error), error) {
	key, err := narinfo.GenerateSecretKey("bench-1")
	if err != nil {
		return nil, err
	}
	cache, files := l.Dir("cache"), l.Dir("files")
	made, err := closure.Generate(l.Context(), cache, closure.Config{Paths: cachedNarinfos, Depth: 15, Seed: 1, Key: key, MaxFileSize: 1})
	if err != nil {
		return nil, err
	}
	daemon := l.Daemon("daemon", lab.DaemonConfig{
		Profile: "off", Upstreams: []string{l.Upstream(cache).URL}, Keys: []string{key.Public().String()},
	})
	var names []string
	for _, r := range made.Records {
		name := "/" + r.StorePath.HashPart().String() + ".narinfo"
		text, err := get(l, daemon.URL()+name)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(files, name), text, 0o644); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	nginx := l.Nginx("nginx", files)
	script := l.File("wrk.lua", wrkScript(names))
	return func() ([]sample, error) {
		theirs, err := wrk(l, script, nginx)
		if err != nil {
			return nil, err
		}
		ours, err := wrk(l, script, daemon.URL())
		if err != nil {
			return nil, err
		}
		return []sample{{ours.Rate, theirs.Rate}, {ours.P50, theirs.P50}, {ours.P99, theirs.P99}}, nil
	}, nil
}

func get(l *lab.Lab, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(l.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// wrkReport is what the script prints at its end. Times are in milliseconds.
type wrkReport struct {
	Rate   float64 `json:"rate"`
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	Errors int     `json:"errors"`
}

// wrkScript asks for the files by turns. What is asked is made once, so that
// wrk itself costs little.
func wrkScript(names []string) string {
	var b strings.Builder
	b.WriteString("local requests = {}\nlocal i = 0\nfunction init()\n")
	for n, name := range names {
		fmt.Fprintf(&b, "  requests[%d] = wrk.format('GET', %q)\n", n+1, name)
	}
	b.WriteString(`end
function request()
  i = i % #requests + 1
  return requests[i]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\nREPORT {"rate": %f, "p50": %f, "p99": %f, "errors": %d}\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    e.connect + e.read + e.write + e.status + e.timeout))
end
`)
	return b.String()
}

func wrk(l *lab.Lab, script, url string) (wrkReport, error) {
	var report wrkReport
	cmd := exec.CommandContext(l.Context(), "wrk",
		"--threads", "2", "--connections", strconv.Itoa(connections), "--duration", fmt.Sprintf("%ds", wrkSeconds), "--script", script, url)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return report, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	_, text, _ := bytes.Cut(out, []byte("REPORT "))
	if err := json.Unmarshal(text, &report); err != nil {
		return report, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	if report.Errors > 0 {
		return report, fmt.Errorf("wrk: %d errors\n%s", report.Errors, out)
	}
	return report, nil
}
