package main

import (
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// The one NAR that slowUpstream serves.
const (
	servedPart = "00bgd045z0d4icpbc2yyz4gx48ak44la"
	servedHash = "0lxjvvpr59c2mdram7ympy5ay741f180kv3349hvfc3f8nrmbqf6"
)

// slowUpstream is a cache that gives half of each NAR and then waits.
type slowUpstream struct {
	*httptest.Server
	// asked receives a value when half a NAR has been sent; the rest follows
	// when release is closed.
	asked   chan struct{}
	release chan struct{}
}

func newSlowUpstream(t *testing.T) *slowUpstream {
	t.Helper()
	u := &slowUpstream{asked: make(chan struct{}, 10), release: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{name}", func(w http.ResponseWriter, r *http.Request) {
		text, err := fs.ReadFile(cachetest.FS, "narinfo/"+r.PathValue("name"))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		info, err := narinfo.Parse(text)
		if err != nil {
			t.Error(err)
			return
		}
		info.URL, info.Compression = "nar/"+servedPart+".nar", "none"
		w.Write(info.Bytes())
	})
	mux.HandleFunc("GET /nar/{name}", func(w http.ResponseWriter, r *http.Request) {
		nar, err := fs.ReadFile(cachetest.FS, r.URL.Path[1:])
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Write(nar[:len(nar)/2])
		http.NewResponseController(w).Flush()
		u.asked <- struct{}{}
		select {
		case <-u.release:
			w.Write(nar[len(nar)/2:])
		case <-r.Context().Done():
		}
	})
	u.Server = httptest.NewServer(mux)
	t.Cleanup(u.Close)
	return u
}

// startDaemon starts a daemon in profile off and returns it with its status.
func startDaemon(t *testing.T, args ...string) (*process, control.Status) {
	t.Helper()
	binary, err := exec.LookPath("nar-p2pd")
	if err != nil {
		t.Fatal(err)
	}
	return startCommand(t, append([]string{binary, "--substituter-listen=127.0.0.1:0"}, args...))
}

// startCommand starts a command that becomes such a daemon.
func startCommand(t *testing.T, command []string, files ...*os.File) (*process, control.Status) {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "control.sock")
	command = append(command, "--profile=off", "--store-kind=none", "--control-socket="+socket, "--state-dir="+filepath.Join(dir, "state"))
	p, err := start(command[0], command[1:], filepath.Join(dir, "log"), files, "HOME="+dir, "PATH="+os.Getenv("PATH"))
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

// transferUnderWay asks for a NAR of which half has come, and returns where
// its bytes will be, or an error.
func transferUnderWay(t *testing.T, u *slowUpstream, substituter string) <-chan any {
	t.Helper()
	result := make(chan any, 1)
	go func() {
		response, err := http.Get(substituter + "/nar/" + servedPart + "-" + servedHash + ".nar")
		if err != nil {
			result <- err
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			result <- err
			return
		}
		result <- body
	}()
	<-u.asked
	return result
}

// TestDrain wants SIGTERM to let a transfer end, to take no new requests
// meanwhile, and then to end the daemon with exit code 0.
func TestDrain(t *testing.T) {
	u := newSlowUpstream(t)
	p, status := startDaemon(t, "--upstream="+u.URL)
	result := transferUnderWay(t, u, status.Substituter)
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.await("STOPPING=1"); err != nil {
		t.Fatal(err)
	}
	close(u.release)
	switch got := (<-result).(type) {
	case []byte:
		if hash := nix.NARHash(sha256.Sum256(got)); hash.Base32() != servedHash {
			t.Errorf("the NAR that ended after SIGTERM has hash %s", hash)
		}
	default:
		t.Errorf("the transfer ended after SIGTERM with %v", got)
	}
	if err := p.wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	if _, err := http.Get(status.Substituter + "/nix-cache-info"); err == nil {
		t.Error("the substituter still answers")
	}
}

// TestSecondSignal wants a second SIGTERM to end the daemon although a transfer
// is under way.
func TestSecondSignal(t *testing.T) {
	u := newSlowUpstream(t)
	p, status := startDaemon(t, "--upstream="+u.URL)
	result := transferUnderWay(t, u, status.Substituter)
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.await("STOPPING=1"); err != nil {
		t.Fatal(err)
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("exit: %v, want by the signal", err)
	}
	if _, ok := (<-result).(error); !ok {
		t.Error("the transfer has ended well")
	}
}

// TestReloadDuringATransfer wants SIGHUP to bring in other upstreams, and a
// transfer that is under way not to notice.
func TestReloadDuringATransfer(t *testing.T) {
	u := newSlowUpstream(t)
	file := filepath.Join(t.TempDir(), "config.toml")
	configure := func(url string) {
		if err := os.WriteFile(file, []byte("[[upstream]]\nurl = '"+url+"'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(u.URL)
	p, status := startDaemon(t, "--config="+file)
	result := transferUnderWay(t, u, status.Substituter)
	configure("http://127.0.0.1:9")
	if err := p.signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"RELOADING=1", "READY=1"} {
		if err := p.await(state); err != nil {
			t.Fatal(err)
		}
	}
	client := control.NewClient([]string{filepath.Join(filepath.Dir(status.StateDir), "control.sock")})
	now, err := client.Status(t.Context())
	if err != nil || len(now.Upstreams) != 1 || now.Upstreams[0].URL != "http://127.0.0.1:9" {
		t.Errorf("the upstreams are now %v, %v", now.Upstreams, err)
	}
	close(u.release)
	got, ok := (<-result).([]byte)
	if hash := nix.NARHash(sha256.Sum256(got)); !ok || hash.Base32() != servedHash {
		t.Errorf("the transfer ended with %d bytes", len(got))
	}
	asked := len(u.asked)
	if _, err := http.Get(status.Substituter + "/nar/" + servedPart + "-" + servedHash + ".nar"); err == nil && len(u.asked) != asked {
		t.Error("an upstream of the past was asked")
	}
}

// TestPortInUse wants the address and a hint in the error.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	tests := map[string]struct {
		args []string
		want string
	}{
		"substituter": {
			[]string{"--profile=off", "--substituter-listen=" + l.Addr().String()},
			"nar-p2pd: substituter.listen: listen tcp " + l.Addr().String(),
		},
		"p2p": {
			[]string{"--network=test", "--substituter-listen=127.0.0.1:0", "--p2p-listen=/ip4/127.0.0.1/tcp/" + port},
			"nar-p2pd: p2p: ",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			dir := t.TempDir()
			args := append(tt.args, "--store-kind=none", "--control-socket="+filepath.Join(dir, "sock"), "--state-dir="+dir)
			out, err := exec.CommandContext(ctx, "nar-p2pd", args...).CombinedOutput()
			if err == nil {
				t.Fatal("nar-p2pd has started")
			}
			for _, want := range []string{tt.want, "address already in use", "hint: find out who listens there"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is not in:\n%s", want, out)
				}
			}
		})
	}
}

// TestSocketActivation passes a socket in the way of systemd: as descriptor 3,
// for the process that $LISTEN_PID names.
func TestSocketActivation(t *testing.T) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, status := startCommand(t, []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec nar-p2pd "$@"`, "sh"}, file)
	if want := "http://" + l.Addr().String(); status.Substituter != want {
		t.Errorf("substituter is at %s, want %s", status.Substituter, want)
	}
}
