package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/internal/metered/meteredtest"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// patience bounds every wait. It is there to fail, not to be waited for.
const patience = time.Minute

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nar-p2pd": main})
}

// TestScripts runs testdata/*.txt with real daemons on loopback, each with
// free ports and a control socket $WORK/NAME.sock, and with a real p2pctl.
//
//	daemon NAME ARGS...    start a daemon and wait until it is ready
//	join NAME OTHER ARGS...
//	                       the same, with OTHER as its bootstrap node, and wait
//	                       until it has joined the DHT
//	endpoint NAME          set $ENDPOINT to where it answers who provides what
//	hangup NAME            send it SIGHUP
//	settled NAME KEY VALUE wait until that is its setting
//	peer NAME VARIABLE     set the variable to its address with its peer ID
//	nixconf NAME TEXT...   write $NIX_CONF_DIR/nix.conf, a line for each TEXT, in which
//	                       SUBSTITUTER is its URL
//	joined NAME            wait until it has joined the DHT
//	resumed NAME           wait until it shares again after a pause
//	shares NAME N          wait until it has that many paths to share
//	announced NAME         wait until it has announced what it holds
//	networkmanager N       have NetworkManager say N of the connection (1 and 3: it is
//	                       metered), on a bus for the daemons that are started from then on
//	metered NAME           wait until it says that the connection is metered; ! until it is not
//	stop NAME              end it with SIGTERM; its exit code must be 0
//	crash NAME             end it with SIGKILL
//	get NAME PATH          print what its substituter answers
//	cache DIR              make a binary cache of genuine records and NARs
func TestScripts(t *testing.T) {
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../p2pctl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build p2pctl: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
			env.Setenv("BIN", bin)
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Values["daemons"] = map[string]*process{}
			env.Values["manager"] = new(*meteredtest.Manager)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"daemon":   func(ts *testscript.TestScript, neg bool, args []string) { cmdDaemon(ts, neg, args[0], args[1:]) },
			"join":     cmdJoin,
			"stop":     cmdStop,
			"crash":    func(ts *testscript.TestScript, _ bool, args []string) { daemons(ts)[args[0]].kill() },
			"get":      cmdGet,
			"endpoint": cmdEndpoint,
			"nixconf":  cmdNixConf,
			"hangup": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(daemons(ts)[args[0]].signal(syscall.SIGHUP))
			},
			"settled": cmdSettled,
			"peer": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[1], statusOf(ts, args[0]).P2P.Addresses[0])
			},
			"joined":    func(ts *testscript.TestScript, _ bool, args []string) { awaitJoined(ts, args[0]) },
			"announced": cmdAnnounced,
			"shares": func(ts *testscript.TestScript, _ bool, args []string) {
				waitFor(ts, args[0]+" to share "+args[1]+" paths", func() bool { return strconv.Itoa(statusOf(ts, args[0]).Store.Shareable) == args[1] })
			},
			"resumed": func(ts *testscript.TestScript, _ bool, args []string) {
				waitFor(ts, args[0]+" to share again", func() bool { return !statusOf(ts, args[0]).Sharing.Paused })
			},
			"networkmanager": cmdNetworkManager,
			"metered": func(ts *testscript.TestScript, neg bool, args []string) {
				waitFor(ts, args[0]+" to know the connection", func() bool { return statusOf(ts, args[0]).Metered.Now != neg })
			},
			"cache": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(genuineCache(ts.MkAbs(args[0]))) },
		},
	})
}

func daemons(ts *testscript.TestScript) map[string]*process {
	return ts.Value("daemons").(map[string]*process)
}

func cmdDaemon(ts *testscript.TestScript, _ bool, name string, args []string) {
	binary, err := exec.LookPath("nar-p2pd")
	ts.Check(err)
	args = append([]string{
		"--substituter-listen=127.0.0.1:0", "--p2p-listen=/ip4/127.0.0.1/tcp/0", "--upstream=",
		"--control-socket=" + ts.MkAbs(name+".sock"), "--state-dir=" + ts.MkAbs(name),
	}, args...)
	// That of this machine is none of a test's business.
	bus := "DBUS_SYSTEM_BUS_ADDRESS=" + cmp.Or(ts.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), "unix:path="+ts.MkAbs("no-bus"))
	p, err := start(binary, args, ts.MkAbs(name+".log"), nil, "HOME="+ts.Getenv("HOME"), bus)
	ts.Check(err)
	ts.Defer(p.kill)
	daemons(ts)[name] = p
	ts.Check(p.await("READY=1"))
}

func cmdJoin(ts *testscript.TestScript, neg bool, args []string) {
	name, other := args[0], args[1]
	status := statusOf(ts, other)
	cmdDaemon(ts, neg, name, append([]string{"--p2p-bootstrap=" + strings.Join(status.P2P.Addresses, ",")}, args[2:]...))
	awaitJoined(ts, name)
}

func awaitJoined(ts *testscript.TestScript, name string) {
	waitFor(ts, name+" to join the DHT", func() bool { return statusOf(ts, name).P2P.RoutingPeers > 0 })
}

// waitFor polls, for what nothing tells of.
func waitFor(ts *testscript.TestScript, what string, done func() bool) {
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			ts.Fatalf("no end after %v of waiting for %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func statusOf(ts *testscript.TestScript, name string) control.Status {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status, err := control.NewClient([]string{ts.MkAbs(name + ".sock")}).Status(ctx)
	ts.Check(err)
	return status
}

func cmdEndpoint(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv("ENDPOINT", statusOf(ts, args[0]).ServesRouting)
}

func cmdNixConf(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs("nix")
	ts.Check(os.MkdirAll(dir, 0o755))
	text := strings.ReplaceAll(strings.Join(args[1:], "\n")+"\n", "SUBSTITUTER", statusOf(ts, args[0]).Substituter)
	ts.Check(os.WriteFile(filepath.Join(dir, "nix.conf"), []byte(text), 0o644))
	ts.Setenv("NIX_CONF_DIR", dir)
}

func cmdSettled(ts *testscript.TestScript, _ bool, args []string) {
	waitFor(ts, args[1]+" to be "+args[2], func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cfg, err := control.NewClient([]string{ts.MkAbs(args[0] + ".sock")}).Config(ctx)
		ts.Check(err)
		for _, s := range cfg.Settings {
			if s.Key == args[1] {
				return strings.Join(s.Values, " ") == args[2]
			}
		}
		return false
	})
}

func cmdAnnounced(ts *testscript.TestScript, _ bool, args []string) {
	waitFor(ts, args[0]+" to announce all", func() bool {
		a := statusOf(ts, args[0]).P2P.Announcing
		return a != nil && a.Keys > 0 && a.Waiting == 0 && a.Regions == 0
	})
}

func cmdNetworkManager(ts *testscript.TestScript, _ bool, args []string) {
	verdict, err := strconv.ParseUint(args[0], 10, 32)
	ts.Check(err)
	manager := ts.Value("manager").(**meteredtest.Manager)
	if *manager != nil {
		(*manager).Say(uint32(verdict))
		return
	}
	bus, err := meteredtest.New()
	ts.Check(err)
	ts.Defer(func() { ts.Check(bus.Close()) })
	ts.Check(bus.Start())
	*manager, err = bus.Manager(uint32(verdict))
	ts.Check(err)
	ts.Defer(func() { (*manager).Close() })
	ts.Setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.Address())
}

func cmdStop(ts *testscript.TestScript, _ bool, args []string) {
	p := daemons(ts)[args[0]]
	ts.Check(p.signal(syscall.SIGTERM))
	ts.Check(p.wait())
}

func cmdGet(ts *testscript.TestScript, _ bool, args []string) {
	response, err := http.Get(statusOf(ts, args[0]).Substituter + args[1])
	ts.Check(err)
	defer response.Body.Close()
	fmt.Fprintln(ts.Stdout(), response.Status)
	_, err = io.Copy(ts.Stdout(), response.Body)
	ts.Check(err)
}

// unsigned is the one path of genuineCache whose signature is missing.
const unsigned = "7m07282prhi2d1vl8q0fq967sg5jpvgd"

// genuineCache writes those of cachetest's records that have a NAR as a binary
// cache.
func genuineCache(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "nar"), 0o755); err != nil {
		return err
	}
	nars, err := fs.Glob(cachetest.FS, "nar/*.nar")
	if err != nil {
		return err
	}
	for _, name := range nars {
		part := strings.TrimSuffix(filepath.Base(name), ".nar")
		text, err := fs.ReadFile(cachetest.FS, "narinfo/"+part+".narinfo")
		if err != nil {
			return err
		}
		info, err := narinfo.Parse(text)
		if err != nil {
			return err
		}
		info.URL, info.Compression, info.FileHash, info.FileSize = name, "none", "", 0
		if part == unsigned {
			info.Signatures = nil
		}
		nar, err := fs.ReadFile(cachetest.FS, name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), nar, 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, part+".narinfo"), info.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "nix-cache-info"), []byte("StoreDir: /nix/store\n"), 0o644)
}

// process is a daemon that tells its state as to systemd.
type process struct {
	cmd *exec.Cmd
	log string
	// states receives what it notifies, until it has exited.
	states chan string
	notify *net.UnixConn
	// exited is closed when err is set.
	exited chan struct{}
	err    error
}

func start(binary string, args []string, log string, files []*os.File, environ ...string) (*process, error) {
	address := log + ".notify"
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &process{
		cmd: exec.Command(binary, args...), log: log, notify: notify,
		states: make(chan string, 16), exited: make(chan struct{}),
	}
	p.cmd.Env = append(environ, "NOTIFY_SOCKET="+address)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.ExtraFiles = files
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.listen()
	go func() {
		p.err = p.cmd.Wait()
		notify.Close()
		os.Remove(address)
		close(p.exited)
	}()
	return p, nil
}

// listen passes on what the daemon notifies, line by line. What nobody awaits
// is dropped: a full socket would hold up the daemon.
func (p *process) listen() {
	buf := make([]byte, 4096)
	for {
		n, err := p.notify.Read(buf)
		if err != nil {
			return
		}
		for state := range strings.SplitSeq(string(buf[:n]), "\n") {
			select {
			case p.states <- state:
			default:
			}
		}
	}
}

// await waits until the daemon has notified a state.
func (p *process) await(state string) error {
	timeout := time.After(patience)
	for {
		select {
		case got := <-p.states:
			if got == state {
				return nil
			}
		case <-p.exited:
			log, err := os.ReadFile(p.log)
			return fmt.Errorf("exited with %v before %s (%v):\n%s", p.err, state, err, log)
		case <-timeout:
			return fmt.Errorf("no %s within %v", state, patience)
		}
	}
}

func (p *process) signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// wait returns how the daemon has exited.
func (p *process) wait() error {
	select {
	case <-p.exited:
		return p.err
	case <-time.After(patience):
		return fmt.Errorf("still runs after %v", patience)
	}
}

// kill ends the daemon if it still runs.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}
