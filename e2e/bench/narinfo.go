package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
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
// the same bytes as files: each server on a core of its own, away from wrk; and
// on cores that it shares with wrk, also beside a server of net/http that does
// nothing.
func narinfos() []measurement {
	return []measurement{{
		lines: []line{
			{name: "narinfo-rate", unit: "requests/s", goal: goal{what: "ratio", target: 0.25, atLeast: true}},
			{name: "narinfo-p50", unit: "ms"},
			{name: "narinfo-p99", unit: "ms", goal: goal{what: "value", target: 5}},
		},
		setUp: setUpNarinfos,
	}, {
		lines: []line{
			{name: "narinfo-shared-rate", unit: "requests/s", goal: goal{what: "ratio", target: 0.25, atLeast: true}},
			{name: "narinfo-shared-p50", unit: "ms"},
			{name: "narinfo-shared-p99", unit: "ms"},
			{name: "narinfo-shared-p99-http", unit: "ms"},
		},
		setUp: setUpSharedNarinfos,
	}}
}

// servers serve the same narinfos.
type servers struct {
	script        string
	daemon, nginx string // URLs
}

func startServers(l *lab.Lab) (*servers, error) {
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
	return &servers{l.File("wrk.lua", wrkScript(names)), daemon.URL(), l.Nginx("nginx", files)}, nil
}

func setUpNarinfos(l *lab.Lab, _ want) (func() ([]sample, error), error) {
	cpus, err := twoCPUs()
	if err != nil {
		return nil, err
	}
	var s *servers
	if err := on(cpus[0], func() (err error) { s, err = startServers(l); return err }); err != nil {
		return nil, err
	}
	measure := func(url string) (r wrkReport, err error) {
		err = on(cpus[1], func() (err error) { r, err = wrk(l, 1, s.script, url); return err })
		return r, err
	}
	return func() ([]sample, error) {
		theirs, err := measure(s.nginx)
		if err != nil {
			return nil, err
		}
		ours, err := measure(s.daemon)
		if err != nil {
			return nil, err
		}
		return []sample{against(ours.Rate, theirs.Rate), against(ours.P50, theirs.P50), against(ours.P99, theirs.P99)}, nil
	}, nil
}

func setUpSharedNarinfos(l *lab.Lab, _ want) (func() ([]sample, error), error) {
	s, err := startServers(l)
	if err != nil {
		return nil, err
	}
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1000)) }))
	context.AfterFunc(l.Context(), bare.Close)
	return func() ([]sample, error) {
		var reports [3]wrkReport
		for i, url := range []string{s.nginx, bare.URL, s.daemon} {
			if reports[i], err = wrk(l, 2, s.script, url); err != nil {
				return nil, err
			}
		}
		nginx, nothing, ours := reports[0], reports[1], reports[2]
		return []sample{
			against(ours.Rate, nginx.Rate), against(ours.P50, nginx.P50), against(ours.P99, nginx.P99), against(ours.P99, nothing.P99),
		}, nil
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

func wrk(l *lab.Lab, threads int, script, url string) (wrkReport, error) {
	var report wrkReport
	cmd := exec.CommandContext(l.Context(), "wrk",
		"--threads", strconv.Itoa(threads), "--connections", strconv.Itoa(connections), "--duration", fmt.Sprintf("%ds", wrkSeconds), "--script", script, url)
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
