package control_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/storetest"
)

// nobody is the unprivileged user's number on every distribution.
const nobody = 65534

// callerSocket turns the test binary into a program that sends requests to a
// socket, each a line of callerRequests, and prints the statuses of the answers.
const (
	callerSocket   = "CONTROL_TEST_SOCKET"
	callerRequests = "CONTROL_TEST_REQUESTS"
)

func TestMain(m *testing.M) {
	socket := os.Getenv(callerSocket)
	if socket == "" {
		goleak.VerifyTestMain(m) // which exits
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for line := range strings.SplitSeq(os.Getenv(callerRequests), "\n") {
		method, path, _ := strings.Cut(line, " ")
		request, err := http.NewRequestWithContext(context.Background(), method, "http://nar-p2pd"+path, strings.NewReader("{}"))
		if err == nil {
			var response *http.Response
			if response, err = client.Do(request); err == nil {
				response.Body.Close()
				fmt.Fprintln(os.Stdout, response.StatusCode)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stdout, err)
		}
	}
}

// askAs sends requests to a socket as another user, where the test is root, and
// returns the statuses.
func askAs(t *testing.T, who syscall.Credential, socket string, requests ...string) []string {
	t.Helper()
	// The test binary lies where only its owner may go.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(storetest.PublicDir(t), "caller")
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = []string{callerSocket + "=" + socket, callerRequests + "=" + strings.Join(requests, "\n")}
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", &stdout, &stderr
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &who}
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	return strings.Fields(stdout.String())
}

// openSocket serves n on a socket that everybody may connect with, as one may
// become by a mistake, and returns it and what is told of the callers.
func openSocket(t *testing.T, n control.Node) (socket string, callers <-chan context.Context) {
	t.Helper()
	socket = filepath.Join(storetest.PublicDir(t), "control.sock")
	l, err := control.Listen(t.Context(), socket, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	seen := make(chan context.Context, 100)
	server := &http.Server{Handler: handler(t, n), ReadHeaderTimeout: time.Minute, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		ctx = control.WithCaller(ctx, c)
		seen <- ctx
		return ctx
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return socket, seen
}

// TestOnlyOwnersChangeAnything has a user connect who has no right to, by a socket
// that is open to everybody.
func TestOnlyOwnersChangeAnything(t *testing.T) {
	n := &obedient{t: t}
	socket, _ := openSocket(t, n)
	requests := []string{
		"GET /v1/status", "GET /metrics", "POST /v1/pause", "POST /v1/provide", "GET /v1/dashboard", "GET /debug/pprof/", "GET /v1/../v1/dashboard",
		"DELETE /v1/status",
	}
	want := []string{"200", "200", "403", "403", "403", "403", "403", "403"}
	if os.Geteuid() != 0 { // then it is no other user who asks
		want = []string{"200", "200", "200", "200", "200", "200", "200", "405"}
	}
	if got := askAs(t, syscall.Credential{Uid: nobody, Gid: nobody}, socket, requests...); !slices.Equal(got, want) {
		t.Errorf("a user without rights got %q, want %q", got, want)
	}
	if os.Geteuid() == 0 && n.changed {
		t.Error("a user without rights has changed something")
	}
	if got := askAs(t, syscall.Credential{}, socket, requests[:5]...); !slices.Equal(got, []string{"200", "200", "200", "200", "200"}) {
		t.Errorf("the owner got %q", got)
	}
	if !n.changed {
		t.Error("the owner has changed nothing")
	}
}

// TestMembersOfTheGroupAreOwners wants a process's groups, few or many, known as
// they are.
func TestMembersOfTheGroupAreOwners(t *testing.T) {
	socket, callers := openSocket(t, &obedient{t: t})
	for _, n := range []int{0, 1, 100} {
		want := []int{nobody}
		who := syscall.Credential{Uid: nobody, Gid: nobody}
		for gid := range n {
			who.Groups = append(who.Groups, uint32(7000+gid))
			want = append(want, 7000+gid)
		}
		if os.Geteuid() != 0 {
			groups, err := os.Getgroups()
			if err != nil {
				t.Fatal(err)
			}
			want = append(groups, os.Getegid())
		}
		askAs(t, who, socket, "GET /v1/status")
		ctx := <-callers
		got := control.GroupsOf(ctx)
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(slices.Compact(want), slices.Compact(got)); diff != "" {
			t.Errorf("groups of a process in %d (-want +got):\n%s", n, diff)
		}
		if os.Geteuid() == 0 && control.MayChange(ctx, 1, 7000) != (n > 0) {
			t.Errorf("a process in %d groups may change something: %v", n, n == 0)
		}
	}
}
