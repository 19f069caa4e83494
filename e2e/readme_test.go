package e2e

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/doctor"
	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// block is a fenced block of a document.
type block struct{ language, text string }

// blocks returns those of a section of README.md.
func blocks(t *testing.T, section string) (all []block) {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("README.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	for i, part := range strings.Split(rest, "```") {
		if i%2 == 1 {
			language, text, _ := strings.Cut(part, "\n")
			all = append(all, block{language, text})
		}
	}
	return all
}

// newcomer is somebody who has just set up a machine, has used Nix on it once,
// and has a checkout of this project. The internet has the cache, whose NARs are
// out of order, a node through which to join the public network, and a neighbour
// who has what the newcomer is about to fetch.
type newcomer struct {
	*lab.Machine
	lab *lab.Lab
	// browser is one on the machine.
	browser *http.Client
	// wanted is what is fetched first.
	wanted *narinfo.Info
	// ill is what the doctor was last unhappy with.
	ill string
	// page is the address of the dashboard once it is open, and shown what the
	// newcomer has seen there of the fetch.
	page  string
	shown chan explain.Fetch
	// bytes counts what the dashboard has from the local network.
	bytes atomic.Int64
}

// newNewcomer sets all that up.
func newNewcomer(t *testing.T) *newcomer {
	t.Helper()
	n := &newcomer{lab: lab.New(t), shown: make(chan explain.Fetch, 1)}
	cache, held := n.lab.Dir("cache.nixos.org"), n.lab.Dir("held")
	n.lab.GenuineCache(held)
	var used *narinfo.Info
	for _, info := range n.lab.GenuineCache(cache) {
		switch {
		case len(info.References) > 0:
		case n.wanted == nil || info.NARSize > n.wanted.NARSize:
			n.wanted = info
		default:
			used = info
		}
	}
	internet := n.lab.Segment()
	server := internet.Host("cache")
	server.ServeTLS("cache.nixos.org", cache)

	boot := n.lab.Daemon("bootstrap", lab.DaemonConfig{Host: internet.Host("bootstrap"), Network: "public", Infrastructure: true})
	beside, host := internet.Host("neighbour"), internet.Host("home")
	beside.JoinLAN()
	host.JoinLAN()
	neighbour := n.lab.Daemon("neighbour", lab.DaemonConfig{Host: beside, Network: "public", Cache: held, Bootstrap: boot})
	neighbour.WaitShared(2)

	n.browser = host.Client()
	n.Machine = host.Machine("newcomer", map[string]string{"cache.nixos.org": server.Addr})
	// The bootstrap nodes of the IPFS DHT are not in this internet.
	n.Setenv("NAR_P2P_P2P_BOOTSTRAP", strings.Join(boot.Addrs(), ","))
	n.checkout(t)
	n.MustRun("/", "nix-store --realise "+used.StorePath.String())
	if err := os.RemoveAll(filepath.Join(cache, "nar")); err != nil {
		t.Fatal(err)
	}
	return n
}

// checkout has the machine build what it installs with what was built for other
// tests, and put it where no administrator need be asked.
func (n *newcomer) checkout(t *testing.T) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "-json", "GOROOT", "GOMODCACHE", "GOCACHE", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	var env struct{ GOROOT, GOMODCACHE, GOCACHE, GOMOD string }
	if err := json.Unmarshal(out, &env); err != nil {
		t.Fatal(err)
	}
	n.Share(env.GOROOT)
	n.Share(env.GOMODCACHE)
	n.Share(filepath.Dir(env.GOMOD))
	n.Bind(env.GOCACHE, env.GOCACHE)
	for name, value := range map[string]string{
		"GOCACHE": env.GOCACHE, "GOMODCACHE": env.GOMODCACHE, "GOPROXY": "off", "GOFLAGS": "-buildvcs=false",
		"BUILD_FLAGS": "", "BIN": "/home/user/build", "PREFIX": "/home/user/.local",
	} {
		n.Setenv(name, value)
	}
	// Who is to ask for the right to write there has it here.
	n.MustRun("/", `mkdir -p ~/.local/bin && printf '#!/bin/sh\nexec "$@"\n' >~/.local/bin/sudo && chmod +x ~/.local/bin/sudo`)
}

// do does what a line of the README says.
func (n *newcomer) do(t *testing.T, line string) {
	t.Helper()
	line = strings.ReplaceAll(line, "/nix/store/…", n.wanted.StorePath.String())
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	switch line {
	case "nar-p2pd":
		n.Start("/", line)
		n.lab.WaitFor("the daemon to answer", func() bool { return n.Command(t.Context(), "/", "p2pctl status").Run() == nil })
	case "p2pctl doctor":
		n.lab.WaitFor("all to be well", func() bool { return n.isWell(t) })
	case "p2pctl dashboard":
		n.open(t, strings.TrimSpace(n.MustRun("/", line)))
	default:
		t.Logf("%s\n%s", line, n.MustRun(dir, line))
	}
}

// isWell reports whether the doctor has nothing to say.
func (n *newcomer) isWell(t *testing.T) bool {
	t.Helper()
	out, err := n.Command(t.Context(), "/", "p2pctl doctor --json").Output()
	var checks []doctor.Check
	if err := json.Unmarshal(out, &checks); err != nil {
		t.Fatalf("p2pctl doctor: %v\n%s", err, out)
	}
	for _, c := range checks {
		if c.Verdict == doctor.OK {
			continue
		}
		if n.ill != c.Name {
			n.ill = c.Name
			t.Logf("not yet: %+v", c)
		}
		return false
	}
	return err == nil && len(checks) > 0
}

// open opens the dashboard and watches it until the test ends.
func (n *newcomer) open(t *testing.T, address string) {
	t.Helper()
	page, _, _ := strings.Cut(address, "#")
	n.page = page
	get := func(path string) *http.Response {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, page+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := n.browser.Do(request)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("dashboard: %v %+v", err, response)
		}
		return response
	}
	get("").Body.Close()
	stream := get("dashboard/stream")
	go func() {
		defer stream.Body.Close()
		lines := bufio.NewScanner(stream.Body)
		lines.Buffer(nil, 16<<20)
		kind := ""
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "event":
				kind = value
			case "data":
				n.see(kind, []byte(value))
			}
		}
	}()
}

// see takes note of what the dashboard shows.
func (n *newcomer) see(kind string, data []byte) {
	switch kind {
	case "events":
		var all []events.Event
		_ = json.Unmarshal(data, &all) // what is not there is not seen
		for _, e := range all {
			if e.Fetch != nil && e.Fetch.Result == explain.Served && e.Fetch.StorePath == n.wanted.StorePath.String() {
				select {
				case n.shown <- *e.Fetch:
				default: // once is enough
				}
			}
		}
	case "seconds":
		var series meter.Series
		_ = json.Unmarshal(data, &series)
		for _, a := range series.Amounts {
			n.bytes.Add(a.LAN)
		}
	}
}

// TestNewcomer does on a clean machine what README.md says, in its words, and
// wants to see what it promises.
func TestNewcomer(t *testing.T) {
	n := newNewcomer(t)
	for _, b := range blocks(t, "First steps") {
		switch b.language {
		case "ini":
			if err := os.WriteFile(n.Path("etc/nix/nix.conf"), []byte(b.text), 0o644); err != nil {
				t.Fatal(err)
			}
		case "sh":
			for line := range strings.Lines(b.text) {
				command, _, _ := strings.Cut(line, "#")
				n.do(t, strings.TrimSpace(command))
			}
		default:
			t.Fatalf("what is a newcomer to do with %+v?", b)
		}
	}
	if n.page == "" {
		t.Fatal("README.md does not tell of the dashboard")
	}
	select {
	case fetch := <-n.shown:
		if !slices.ContainsFunc(fetch.Sources, func(s explain.Source) bool { return s.Kind == explain.FromPeers && s.Bytes == n.wanted.NARSize }) {
			t.Errorf("the dashboard shows %+v, want all bytes from peers", fetch)
		}
	case <-n.lab.Context().Done():
		t.Error("the dashboard does not show the fetch")
	}
	n.lab.WaitFor("the dashboard to show the bytes", func() bool { return n.bytes.Load() >= n.wanted.NARSize })
	if _, err := os.Stat(n.Path(n.wanted.StorePath.String())); err != nil {
		t.Error(err)
	}
}
