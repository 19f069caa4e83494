package conns_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"

	"github.com/nar-p2p/nar-p2p/internal/conns"
)

const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

func sayOK(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }

func answered(t *testing.T, conn net.Conn) {
	t.Helper()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", answer, err)
	}
}

// useUp opens files until no more can be, and returns how to close so many of them.
func useUp(t *testing.T) (free func(n int)) {
	t.Helper()
	var usual syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &usual); err != nil {
		t.Fatal(err)
	}
	few := usual
	few.Cur = 256
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	free = func(n int) {
		for _, f := range files[:n] {
			f.Close()
		}
		files = files[n:]
	}
	t.Cleanup(func() {
		free(len(files))
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &usual); err != nil {
			t.Error(err)
		}
	})
	for {
		f, err := os.Open(os.DevNull)
		if errors.Is(err, syscall.EMFILE) {
			return free
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
}

// Where the process has no descriptors left nobody waits until it has: who comes is
// turned away. Once there are some, clients are served again.
func TestNoDescriptorsLeft(t *testing.T) {
	l := listen(t)
	clients := []net.Conn{dial(t, l, request), dial(t, l, request), dial(t, l, request)}
	server := &http.Server{Handler: http.HandlerFunc(sayOK)}
	bounded := conns.Bound(server, l, 16)
	free := useUp(t)
	done := make(chan error, 1)
	go func() { done <- server.Serve(bounded) }()
	for _, conn := range clients {
		if !closed(t, conn) {
			t.Error("a client waits, or was served: the test shows nothing")
		}
	}
	free(2) // for both ends
	answered(t, dial(t, l, request))
	server.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// Connections at rest make room before anybody is turned away.
func TestDescriptorsOfThoseAtRest(t *testing.T) {
	l := listen(t)
	serve(t, l, 16, sayOK)
	resting := dial(t, l, request)
	answered(t, resting)
	useUp(t)(1)
	answered(t, dial(t, l, request))
	if !closed(t, resting) {
		t.Error("the connection at rest is still open")
	}
}
