package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// TestWatchdog wants signs of life where systemd asks for them, and a status
// line, until the daemon is told to end.
func TestWatchdog(t *testing.T) {
	binary, err := exec.LookPath("nar-p2pd")
	if err != nil {
		t.Fatal(err)
	}
	p, _ := startCommand(t, []string{"env", "WATCHDOG_USEC=300000", binary, "--substituter-listen=127.0.0.1:0"})
	for _, want := range []string{"STATUS=profile off", "WATCHDOG=1", "WATCHDOG=1"} {
		if err := p.await(want); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"STOPPING=1", "STATUS=stopping: letting transfers finish"} {
		if err := p.await(want); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
}

// TestReloading wants systemd to be told when reading the settings begins and ends.
func TestReloading(t *testing.T) {
	p, _ := startDaemon(t)
	if err := p.signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"RELOADING=1", "READY=1"} {
		if err := p.await(want); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAlive wants no sign of life of a daemon that does not answer, or cannot
// read its database.
func TestAlive(t *testing.T) {
	tests := map[string]struct {
		handler http.HandlerFunc
		closeDB bool
		want    string
	}{
		"well":        {func(http.ResponseWriter, *http.Request) {}, false, ""},
		"hangs":       {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false, "Client.Timeout"},
		"refuses":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, false, "403 Forbidden"},
		"no database": {func(http.ResponseWriter, *http.Request) {}, true, "state database: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			db, err := state.Open(t.TempDir(), zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			if tt.closeDB {
				db.Close()
			} else {
				defer db.Close()
			}
			client := &http.Client{}
			if tt.want == "Client.Timeout" {
				client.Timeout = time.Millisecond
			}
			d := &daemon{http: server.Listener, db: db, log: zap.NewNop()}
			err = d.alive(t.Context(), client)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("alive() = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestSystemdSocketActivate connects while there is no daemon, and wants the
// answer of the one that systemd's own program then starts.
func TestSystemdSocketActivate(t *testing.T) {
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
	answered := make(chan error, 1)
	go func() {
		response, err := http.Get("http://" + l.Addr().String() + "/nix-cache-info")
		if err == nil {
			err = response.Body.Close()
		}
		answered <- err
	}()
	const activate = `LISTEN_PID=$$ LISTEN_FDS=1 exec systemd-socket-activate --setenv=NOTIFY_SOCKET "$@"`
	startCommand(t, []string{"sh", "-c", activate, "sh", "nar-p2pd"}, file)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
