package main

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/tracing/tracingtest"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// TestTraces fetches one NAR from a peer and one from an upstream, and wants a
// collector to be told of everything on the way.
func TestTraces(t *testing.T) {
	binary, err := exec.LookPath("nar-p2pd")
	if err != nil {
		t.Fatal(err)
	}
	collector := tracingtest.NewCollector(t)
	dir := t.TempDir()
	if err := genuineCache(filepath.Join(dir, "cache")); err != nil {
		t.Fatal(err)
	}
	daemon := func(name string, args ...string) (*process, control.Status) {
		t.Helper()
		socket := filepath.Join(dir, name+".sock")
		p, err := start(binary, append([]string{
			"--substituter-listen=127.0.0.1:0", "--p2p-listen=/ip4/127.0.0.1/tcp/0", "--network=test", "--log-level=debug", "--log-format=json",
			"--p2p-bootstrap=", "--control-socket=" + socket, "--state-dir=" + filepath.Join(dir, name),
		}, args...), filepath.Join(dir, name+".log"), nil, "HOME="+dir, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL)
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
		return p, status
	}
	_, provider := daemon("provider", "--upstream=", "--store-kind=cache", "--store-cache="+filepath.Join(dir, "cache"))
	consumer, status := daemon("consumer", "--upstream="+upstreamOf(t, unsigned), "--store-kind=none", "--p2p-peers="+provider.P2P.Addresses[0])

	for _, part := range []string{"00bgd045z0d4icpbc2yyz4gx48ak44la", unsigned} {
		info, err := narinfo.Parse(read(t, status.Substituter+"/"+part+".narinfo"))
		if err != nil {
			t.Fatal(err)
		}
		if nar := read(t, status.Substituter+"/"+info.URL); int64(len(nar)) != info.NARSize {
			t.Errorf("%s: %d bytes came", info.StorePath, len(nar))
		}
	}
	if err := consumer.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := consumer.wait(); err != nil {
		t.Fatal(err)
	}

	var nars, narinfos []*tracingtest.Span
	for _, root := range collector.Roots(t) {
		t.Log(root.Tree())
		switch root.Name {
		case "narinfo":
			narinfos = append(narinfos, root)
		case "nar":
			nars = append(nars, root)
		}
	}
	if len(narinfos) != 2 || len(nars) != 2 {
		t.Fatalf("there are traces of %d narinfos and %d NARs, want 2 and 2", len(narinfos), len(nars))
	}
	checkPeerTrace(t, narinfos[0], nars[0], provider.P2P.PeerID)
	checkUpstreamTrace(t, narinfos[1], nars[1])
	log, err := os.ReadFile(filepath.Join(dir, "consumer.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), `"traceId":"`+nars[0].Trace+`"`) {
		t.Errorf("the log does not have the ID of the trace %s", nars[0].Trace)
	}
}

func checkPeerTrace(t *testing.T, info, nar *tracingtest.Span, provider string) {
	t.Helper()
	wantAttributes(t, info, "nar_p2p.result", "found", "http.response.status_code", "200", "http.request.method", "GET")
	lookup := info.Child(t, "lookup")
	lookup.Child(t, "upstream narinfo")
	wantAttributes(t, lookup.Child(t, "peers narinfo"), "nar_p2p.answers", "1")

	wantAttributes(t, nar, "nar_p2p.result", "served", "http.response.status_code", "200")
	nar.Child(t, "lookup")
	fetch := nar.Child(t, "fetch")
	wantAttributes(t, fetch, "nar_p2p.result", "served", "nar_p2p.nar_size", "464152")
	if plan := fetch.Child(t, "plan"); !slices.Contains(plan.Events, "peer") || plan.Attributes["nar_p2p.order"] == "" {
		t.Errorf("the plan is %+v", plan)
	}
	fetch.Child(t, "verify")
	i := slices.IndexFunc(fetch.Children, func(s *tracingtest.Span) bool { return s.Attributes["nar_p2p.source"] == "peer" })
	if i < 0 {
		t.Fatalf("no peer was a source:\n%s", fetch.Tree())
	}
	peers := fetch.Children[i]
	wantAttributes(t, peers, "nar_p2p.bytes", "464152")
	if found := peers.Child(t, "providers"); !slices.Contains(found.Events, "found") {
		t.Errorf("the search was %+v", found)
	}
	wantAttributes(t, peers.Child(t, "connect"), "nar_p2p.peer", provider)
	wantAttributes(t, peers.Child(t, "session"), "nar_p2p.peer", provider, "nar_p2p.bytes", "464152", "nar_p2p.via", "lan")
}

func checkUpstreamTrace(t *testing.T, info, nar *tracingtest.Span) {
	t.Helper()
	wantAttributes(t, info, "nar_p2p.result", "found")
	if asked := info.Child(t, "lookup").Child(t, "upstream narinfo"); asked.Error != "" || asked.Attributes["url.full"] == "" {
		t.Errorf("the upstream was asked: %+v", asked)
	}
	fetch := nar.Child(t, "fetch")
	i := slices.IndexFunc(fetch.Children, func(s *tracingtest.Span) bool { return s.Attributes["nar_p2p.source"] == "upstream" })
	if i < 0 {
		t.Fatalf("the upstream was no source:\n%s", fetch.Tree())
	}
	wantAttributes(t, fetch.Children[i], "nar_p2p.bytes", "168")
}

// wantAttributes wants pairs of a key and a value.
func wantAttributes(t *testing.T, s *tracingtest.Span, pairs ...string) {
	t.Helper()
	for pair := range slices.Chunk(pairs, 2) {
		if got := s.Attributes[pair[0]]; got != pair[1] {
			t.Errorf("%s: %s is %q, want %q", s.Name, pair[0], got, pair[1])
		}
	}
}

// upstreamOf serves one genuine path.
func upstreamOf(t *testing.T, part string) string {
	t.Helper()
	mux := http.NewServeMux()
	serve := func(path, file string) {
		data, err := fs.ReadFile(cachetest.FS, file)
		if err != nil {
			t.Fatal(err)
		}
		if path == "/"+part+".narinfo" {
			info, err := narinfo.Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			info.URL, info.Compression, info.FileHash, info.FileSize = "the.nar", "none", "", 0
			data = info.Bytes()
		}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { w.Write(data) })
	}
	serve("/"+part+".narinfo", "narinfo/"+part+".narinfo")
	serve("/the.nar", "nar/"+part+".nar")
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// read returns what a URL has.
func read(t *testing.T, url string) []byte {
	t.Helper()
	return body(t, http.DefaultClient, url, http.StatusOK)
}
