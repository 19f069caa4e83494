// Package lab boots real daemons, real Nix stores and real binary caches for
// end to end tests: on loopback, or on hosts of their own in network
// namespaces, which see each other as on a switch (Segment) or over lines of a
// rate, a delay and a loss (Net).
//
// Everything a test starts ends with it, also when the test process dies; the
// files and network namespaces that a process could not remove before it died,
// the next one does. When a test fails, the logs of its daemons are part of its
// output.
package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Patience bounds every wait in a lab. It only decides how long a broken test
// takes to fail, so it is generous.
const Patience = 90 * time.Second

// T is what a lab needs of a test. Every testing.TB is one; see Play for labs
// outside of tests.
type T interface {
	Helper()
	Context() context.Context
	Cleanup(f func())
	Failed() bool
	Logf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// Scale returns how much of something a test uses: little as a rule, and all of
// it in the full run, where TEST_FULL_SCALE is set.
func Scale(little, full int) int {
	if os.Getenv("TEST_FULL_SCALE") != "" {
		return full
	}
	return little
}

// Lab is one test's set of daemons, stores and caches.
type Lab struct {
	t    T
	dir  string
	home *homeDir
	// bin is where the programs are once a daemon was started.
	bin string
	// certificate is the file of the only one that Nix and daemons trust, or "".
	certificate string
}

// New makes an empty lab for t.
func New(t T) *Lab {
	t.Helper()
	home, err := home()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	// Not the test's own folder: with its long name the path of a control
	// socket would exceed the 107 bytes that there are.
	dir, err := os.MkdirTemp(home.dir, "")
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	t.Cleanup(func() {
		if err := removeStore(dir); err != nil {
			t.Logf("lab: %v", err)
		}
	})
	return &Lab{t: t, dir: dir, home: home, bin: home.dir}
}

// Main runs a package's tests and then Clean; or one of its Strangers.
func Main(m *testing.M) int {
	if setup, ok := os.LookupEnv(strangerEnv); ok {
		if err := runStranger(setup); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	defer Clean()
	return m.Run()
}

// Race reports whether the programs have the race detector in them, which takes time
// and memory of its own.
func Race() bool { return raceEnabled }

// programs builds nar-p2pd and p2pctl once for all tests of the process, with
// the race detector where the tests have it.
func (h *homeDir) programs() error {
	h.build.Do(func() {
		args := []string{"build", "-o", h.dir + "/"}
		if raceEnabled {
			args = append(args, "-race")
		}
		cmd := exec.CommandContext(context.Background(), "go", append(args, "./cmd/nar-p2pd", "./cmd/p2pctl")...)
		cmd.Dir = moduleRoot()
		ownGroup(cmd)
		if out, err := cmd.CombinedOutput(); err != nil {
			h.buildErr = fmt.Errorf("build the programs: %w\n%s", err, out)
		}
	})
	return h.buildErr
}

// moduleRoot returns the folder with go.mod.
func moduleRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Dir returns a new folder of the lab.
func (l *Lab) Dir(name string) string {
	l.t.Helper()
	dir := filepath.Join(l.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	return dir
}

// File writes a file of the lab and returns its path.
func (l *Lab) File(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.Dir("files"), name)
	l.write(path, text)
	return path
}

// Context returns a context that ends with the test, or when Patience does.
func (l *Lab) Context() context.Context { return l.Within(Patience) }

// Within returns a context that ends with the test, or after d.
func (l *Lab) Within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(l.t.Context(), d)
	l.t.Cleanup(cancel)
	return ctx
}

// WaitFor fails the test unless cond becomes true within Patience.
func (l *Lab) WaitFor(what string, cond func() bool) {
	l.t.Helper()
	l.WaitLonger(what, Patience, cond)
}

// WaitLonger is WaitFor with a patience of its own, for what libp2p does at
// intervals that are none of ours.
func (l *Lab) WaitLonger(what string, patience time.Duration, cond func() bool) {
	l.t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		if cond() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			tick.Stop()
			l.t.Fatalf("lab: waited %v for %s", patience, what)
		}
	}
}

// ownGroup makes cmd die with the test process, and its children with it.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
}
