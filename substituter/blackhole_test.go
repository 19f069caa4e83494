package substituter_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// blackHole returns the address of a real socket whose queue is full, so that
// Linux drops every further SYN.
func blackHole(t *testing.T) string {
	t.Helper()
	socket := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	listener := socket()
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 0); err != nil {
		t.Fatal(err)
	}
	address, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 { // the queue has room for one
		_ = unix.Connect(socket(), address) // in progress
	}
	return fmt.Sprintf("127.0.0.1:%d", address.(*unix.SockaddrInet4).Port)
}

// With a real connection that is never made, what was promised holds too.
func TestBlackHole(t *testing.T) {
	l := newLab(t)
	l.cfg.Upstreams = []upstream.Config{{URL: "http://" + blackHole(t)}}
	l.cfg.Deadline = time.Minute
	l.start()
	begin := time.Now()
	for i := range 3 {
		p := l.path(fmt.Sprint(i), small)
		l.peers.add(fromPeer(p))
		l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true})
		l.get(p.narinfoURL(), http.StatusOK)
		if got := l.server.Stats().Upstreams[0]; got.Reachable || !strings.HasPrefix(got.Problem, p.narinfoURL()[1:]+": connect: ") && i == 0 {
			t.Errorf("%+v", got)
		}
		l.getNAR(p)
	}
	// One connect timeout, of 2 s; not one for each, nor the deadline.
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}
