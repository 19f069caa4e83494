package nixdb_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/nixdb"
	"github.com/nar-p2p/nar-p2p/narstore/storetest"
)

// nobody is the unprivileged user's number on every distribution.
const nobody = 65534

// readerRoot and readerSocket turn the test binary into a program that follows
// a store, opens every path it is told of, and prints what happens.
const (
	readerRoot   = "NIXDB_TEST_READER_ROOT"
	readerSocket = "NIXDB_TEST_READER_SOCKET"
)

func TestMain(m *testing.M) {
	if root := os.Getenv(readerRoot); root != "" {
		if err := read(root, os.Getenv(readerSocket)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// read is the program. It ends when the pipe to its test breaks.
func read(root, socket string) error {
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(os.Stdout), zap.InfoLevel))
	store, err := nixdb.Open(nixdb.Config{Root: root, DaemonSocket: socket, Poll: poll}, log)
	if err != nil {
		return err
	}
	return store.Follow(context.Background(), func(u narstore.Update) error {
		for _, info := range u.Added {
			sum, err := narSum(store, info)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(os.Stdout, "added %s %s %d\n", info.Path, sum, len(info.Signatures)); err != nil {
				return err
			}
		}
		for _, part := range u.Removed {
			if _, err := fmt.Fprintf(os.Stdout, "removed %s\n", part); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(os.Stdout, "settled %v\n", u.Settled)
		return err
	})
}

func narSum(store *nixdb.Store, info *narstore.PathInfo) (string, error) {
	nar, err := store.Open(context.Background(), info)
	if err != nil {
		return "", err
	}
	defer nar.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(nar, 0, nar.Size())); err != nil {
		return "", err
	}
	return nix.NARHash(h.Sum(nil)).String(), nil
}

// reader is the program at work, as nobody where the test is root.
type reader struct {
	t     *testing.T
	lines chan string
	seen  []string
}

func startReader(t *testing.T, n *storetest.Nix, socket string) *reader {
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
	program := filepath.Join(storetest.PublicDir(t), "reader")
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = []string{readerRoot + "=" + n.Root, readerSocket + "=" + socket}
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, lines: make(chan string)}
	done := make(chan struct{})
	go func() {
		defer close(r.lines)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			select {
			case r.lines <- lines.Text():
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the reader said:\n%s\n%s", strings.Join(r.seen, "\n"), stderr.Bytes())
		}
	})
	return r
}

// until reads what the program prints until a line contains text.
func (r *reader) until(text string) {
	r.t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		select {
		case line, ok := <-r.lines:
			r.seen = append(r.seen, line)
			switch {
			case !ok:
				r.t.Fatalf("the reader ended before it said %q", text)
			case strings.Contains(line, text):
				return
			}
		case <-limit.C:
			r.t.Fatalf("the reader has not said %q", text)
		}
	}
}

func TestUnprivileged(t *testing.T) {
	tests := []struct {
		name string
		// prepare returns the socket that the reader may use.
		prepare func(tb testing.TB, n *storetest.Nix) string
		from    string
	}{
		{
			name:    "nobody has the database open",
			prepare: func(testing.TB, *storetest.Nix) string { return "/nonexistent" },
			from:    "snapshot of the database",
		},
		{
			name: "a Nix process has the database open",
			prepare: func(tb testing.TB, n *storetest.Nix) string {
				tb.Helper()
				holdOpen(tb, n)
				return "/nonexistent"
			},
			from: "database",
		},
		{
			name:    "the daemon brings the log into being",
			prepare: startDaemon,
			from:    "database",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := storetest.NewNix(t)
			first := n.AddTree(t, "first", "first")
			r := startReader(t, n, test.prepare(t, n))
			from := test.from
			if os.Geteuid() != 0 {
				from = "database" // the reader is Nix's own user, who needs no such ways
			}
			r.until(fmt.Sprintf(`"from":%q`, from))
			r.until(added(t, n, first))
			r.until("settled true")
			second := n.AddTree(t, "second", "second")
			r.until(added(t, n, second))
			n.Delete(t, first)
			r.until("removed " + first.HashPart().String())
			// The reader may have changed how it reads: nothing is lost by that.
			third := n.AddTree(t, "third", "third")
			r.until(added(t, n, third))
		})
	}
}

// added is what the reader says of a path.
func added(t *testing.T, n *storetest.Nix, path nix.StorePath) string {
	t.Helper()
	return fmt.Sprintf("added %s %s 0", path, nix.NARHash(sha256.Sum256(n.Dump(t, path))))
}

// holdOpen has a Nix process keep the database open until the test ends.
func holdOpen(tb testing.TB, n *storetest.Nix) {
	tb.Helper()
	cmd := n.Command(tb, "nix-store", "--serve", "--store", n.URL())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	// The serve protocol's greeting and a query make sure that it is open.
	hello := []byte("\xeb\x9d\x0c\x39\x00\x00\x00\x00\x05\x02\x00\x00\x00\x00\x00\x00")
	if _, err := stdin.Write(hello); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, 16)); err != nil {
		tb.Fatal(err)
	}
	for _, log := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(filepath.Join(n.Root, "nix/var/nix/db/db.sqlite"+log)); err != nil {
			tb.Fatal(err)
		}
	}
}

// startDaemon starts a nix-daemon for the store and returns its socket.
func startDaemon(tb testing.TB, n *storetest.Nix) string {
	tb.Helper()
	// Short, because the length of such a path is limited.
	socket := filepath.Join(storetest.PublicDir(tb), "s")
	cmd := n.Command(tb, "nix-daemon", "--store", n.URL())
	cmd.Env = append(cmd.Env, "NIX_DAEMON_SOCKET_PATH="+socket)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if tb.Failed() {
			tb.Logf("nix-daemon said:\n%s", stderr.Bytes())
		}
	})
	for start := time.Now(); ; time.Sleep(poll) {
		if _, err := os.Stat(socket); err == nil {
			return socket
		}
		if time.Since(start) > time.Minute {
			tb.Fatalf("nix-daemon does not make its socket:\n%s", stderr.Bytes())
		}
	}
}
