package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

// Daemon is a running nar-p2pd with state and configuration of its own.
type Daemon struct {
	lab    *Lab
	name   string
	host   *Host
	dir    string
	config string
	flags  []string
	under  []string
	// client is one for all, since each would keep a connection.
	client *control.Client
	cmd    *exec.Cmd
	// exited is closed when the program has ended, with exitErr.
	exited  chan struct{}
	exitErr error
	// started holds the status of the last start.
	started control.Status
	// offline: it may have no address when it starts.
	offline bool
}

// DaemonConfig is how a daemon differs from one that knows nobody, has no
// store and no upstream, in the private network "lab".
type DaemonConfig struct {
	// Host is where it runs; nil means on this machine's loopback.
	Host *Host
	// Network is "lab" where it is "", or "public", or another name.
	Network string
	// Profile is the one that goes with the network where it is "".
	Profile string
	// Bootstrap is the only peer that the daemon knows.
	Bootstrap *Daemon
	// Peer is one to stay connected with.
	Peer *Daemon
	// Allow are the only peer IDs that it talks to, where there are any.
	Allow []string
	// Anywhere makes it listen on all addresses that its host has or gets.
	Anywhere bool
	// Port is the one that it listens on; 0 is any, another one at each start.
	Port int
	// StoreRoot is the real root of the Nix store to serve from; Cache a folder
	// that is a binary cache.
	StoreRoot, Cache string
	// Infrastructure makes it a node that serves the DHT in any case, and has no
	// store.
	Infrastructure bool
	// RelayData lets infrastructure relay NARs.
	RelayData bool
	// Bootstraps are further peers that the daemon knows, and Known addresses of
	// such, each with its peer ID.
	Bootstraps []*Daemon
	Known      []string
	// BootstrapBy is "tcp" or "udp" where it knows only their addresses of that.
	BootstrapBy string
	// ServeRouting is the address at which it tells others who provides what.
	ServeRouting string
	// Upstreams are URLs of binary caches; PrivateUpstreams of such whose paths
	// strangers are never asked for.
	Upstreams, PrivateUpstreams []string
	// NoPrefetch leaves the references of a record alone until Nix asks.
	NoPrefetch bool
	// Keys are trusted and shared beside those of ShareKeys and TrustKeys. All
	// empty leaves the daemon's defaults, the key of cache.nixos.org.
	Keys, ShareKeys, TrustKeys []string
	// AnnounceBudget is how much it may send a day to announce, such as "1MiB".
	AnnounceBudget string
	// Threshold is 1 where it is 0.
	Threshold int
	// Reuse are lines of the configuration's section of that name.
	Reuse []string
	// Flags are further arguments of nar-p2pd.
	Flags []string
	// Under is a command under which it runs, such as prlimit with its arguments.
	Under []string
}

// Daemon starts a daemon and waits until it answers on its control socket.
func (l *Lab) Daemon(name string, cfg DaemonConfig) *Daemon {
	l.t.Helper()
	d := &Daemon{
		lab: l, name: name, host: cfg.Host, dir: l.Dir("daemon-" + name), flags: cfg.Flags, under: cfg.Under, offline: cfg.Anywhere,
	}
	d.client = control.NewClient([]string{d.socket()})
	d.config = filepath.Join(d.dir, "config.toml")
	l.write(d.config, cfg.toml(d.socket()))
	l.t.Cleanup(func() {
		d.kill()
		if l.t.Failed() {
			l.t.Logf("log of %s:\n%s", name, d.Log())
		}
	})
	d.Start()
	return d
}

func (c *DaemonConfig) toml(socket string) string {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	list := func(key string, values []string) {
		if len(values) > 0 {
			line("%s = [%s]", key, quote(values))
		}
	}
	network, addr := c.Network, "127.0.0.1"
	if network == "" {
		network = "lab"
	}
	switch {
	case c.Anywhere:
		addr = "0.0.0.0"
	case c.Host != nil:
		addr = c.Host.Addr
	}
	line("network = %q", network)
	if c.Profile != "" {
		line("profile = %q", c.Profile)
	}
	if c.Infrastructure {
		line("role = \"infrastructure\"")
	}
	if c.RelayData {
		line("relay.data = true")
	}
	if c.ServeRouting != "" {
		line("serve_routing = %q", c.ServeRouting)
	}
	if len(c.Upstreams)+len(c.PrivateUpstreams) == 0 {
		line("upstream = []")
	}
	line("[log]\nlevel = \"info\"")
	line("[control]\nsocket = %q", socket)
	line("[substituter]\nlisten = \"127.0.0.1:0\"\nprefetch = %t", !c.NoPrefetch)
	line("[p2p]")
	var listen []string
	listenOn := func(ip string) {
		listen = append(listen, fmt.Sprintf("%s/tcp/%d", ip, c.Port), fmt.Sprintf("%s/udp/%d/quic-v1", ip, c.Port))
	}
	listenOn("/ip4/" + addr)
	if c.Host != nil && c.Host.Addr6 != "" {
		listenOn("/ip6/" + c.Host.Addr6)
	}
	if c.Host != nil && c.Host.LAN != "" {
		listenOn("/ip4/" + c.Host.LAN)
	}
	list("listen", listen)
	if c.Peer != nil {
		list("peers", c.Peer.Addrs())
	}
	bootstrap := slices.Clone(c.Known)
	for _, d := range append(c.Bootstraps, c.Bootstrap) {
		if d != nil {
			for _, addr := range d.Addrs() {
				if c.BootstrapBy == "" || strings.Contains(addr, "/"+c.BootstrapBy+"/") {
					bootstrap = append(bootstrap, addr)
				}
			}
		}
	}
	if len(bootstrap) == 0 {
		line("bootstrap = []")
	}
	list("bootstrap", bootstrap)
	list("allow", c.Allow)
	switch {
	case c.Cache != "":
		line("[store]\nkind = \"cache\"\ncache = %q", c.Cache)
	case c.StoreRoot != "":
		line("[store]\nkind = \"nix\"\nroot = %q", c.StoreRoot)
	default:
		line("[store]\nkind = \"none\"")
	}
	line("[share]")
	list("public_keys", append(c.ShareKeys, c.Keys...))
	if c.AnnounceBudget != "" {
		line("announce_budget = %q", c.AnnounceBudget)
	}
	line("[trust]")
	list("public_keys", append(c.TrustKeys, c.Keys...))
	if c.Threshold > 0 {
		line("threshold = %d", c.Threshold)
	}
	if len(c.Reuse) > 0 {
		line("[reuse]\n%s", strings.Join(c.Reuse, "\n"))
	}
	for _, url := range c.Upstreams {
		line("[[upstream]]\nurl = %q", url)
	}
	for _, url := range c.PrivateUpstreams {
		line("[[upstream]]\nurl = %q\nprivate = true", url)
	}
	return b.String()
}

func quote(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	return strings.Join(quoted, ", ")
}

func (d *Daemon) socket() string   { return filepath.Join(d.dir, "control.sock") }
func (d *Daemon) stateDir() string { return filepath.Join(d.dir, "state") }

// Socket is its control socket.
func (d *Daemon) Socket() string { return d.socket() }

// StateDir is where the daemon keeps its state.
func (d *Daemon) StateDir() string { return d.stateDir() }

// Log is what the daemon has said so far.
func (d *Daemon) Log() string {
	data, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Start starts a daemon that was stopped.
func (d *Daemon) Start() {
	d.lab.t.Helper()
	if err := d.run(); err != nil {
		d.lab.t.Fatalf("lab: start %s: %v", d.name, err)
	}
	d.lab.WaitFor(d.name+" to answer and to listen", func() bool {
		select {
		case <-d.exited:
			d.lab.t.Fatalf("lab: %s has ended: %v", d.name, d.exitErr)
		default:
		}
		var err error
		d.started, err = d.status()
		return err == nil && (d.started.P2P == nil || len(d.started.P2P.Addresses) > 0 || d.offline)
	})
}

// run starts the program.
func (d *Daemon) run() error {
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // The child has its own.
	if err := d.lab.home.programs(); err != nil {
		return err
	}
	// Not the test's context: the daemon ends in the clean-up, where its log is
	// complete.
	command := slices.Concat(d.under, []string{
		filepath.Join(d.lab.bin, "nar-p2pd"), "--config", d.config, "--state-dir", d.stateDir(),
	}, d.flags)
	d.cmd = d.host.Command(context.Background(), command[0], command[1:]...)
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir, "NAR_P2P_METERED=no"} // whatever this machine's is
	if d.lab.certificate != "" {
		d.cmd.Env = append(d.cmd.Env, "SSL_CERT_FILE="+d.lab.certificate)
	}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	d.exited = make(chan struct{})
	go func() {
		d.exitErr = d.cmd.Wait()
		close(d.exited)
	}()
	return nil
}

// Refuses starts a daemon that was stopped, and returns what it says before it ends
// with an error, as it should.
func (d *Daemon) Refuses() string {
	d.lab.t.Helper()
	before := len(d.Log())
	if err := d.run(); err != nil {
		d.lab.t.Fatalf("lab: %v", err)
	}
	select {
	case <-d.exited:
	case <-time.After(Patience):
		d.lab.t.Fatalf("lab: %s still runs", d.name)
	}
	if d.exitErr == nil {
		d.lab.t.Fatalf("lab: %s has ended without an error", d.name)
	}
	return d.Log()[before:]
}

// Stop ends the daemon by SIGTERM and returns how it ended.
func (d *Daemon) Stop() error {
	d.lab.t.Helper()
	if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.exited:
		return d.exitErr
	case <-time.After(Patience):
		return fmt.Errorf("%s did not end within %v of SIGTERM", d.name, Patience)
	}
}

// Kill ends the daemon without a word.
func (d *Daemon) Kill() { d.kill() }

func (d *Daemon) kill() {
	if d.exited == nil {
		return
	}
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL) // It may have ended.
	<-d.exited
}

// WipeState removes the state folder of a daemon that is stopped.
func (d *Daemon) WipeState() {
	d.lab.t.Helper()
	if err := os.RemoveAll(d.stateDir()); err != nil {
		d.lab.t.Fatalf("lab: %v", err)
	}
}

func (d *Daemon) status() (control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return d.client.Status(ctx)
}

// Status returns what `p2pctl status` shows.
func (d *Daemon) Status() control.Status {
	d.lab.t.Helper()
	s, err := d.status()
	if err != nil {
		d.lab.t.Fatalf("lab: status of %s: %v", d.name, err)
	}
	return s
}

// ConnectedTo reports whether the daemon is connected with another one, and
// Speaks whether that answers its stream protocols too.
func (d *Daemon) ConnectedTo(other *Daemon) bool { return d.peer(other) != nil }

// Speaks is described at ConnectedTo.
func (d *Daemon) Speaks(other *Daemon) bool {
	p := d.peer(other)
	return p != nil && p.Exchange
}

func (d *Daemon) peer(other *Daemon) *control.Peer {
	d.lab.t.Helper()
	for _, p := range d.Peers() {
		if p.ID == other.PeerID() {
			return &p
		}
	}
	return nil
}

// Peers returns what `p2pctl peers` shows.
func (d *Daemon) Peers() []control.Peer {
	d.lab.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	peers, err := d.client.Peers(ctx)
	if err != nil {
		d.lab.t.Fatalf("lab: peers of %s: %v", d.name, err)
	}
	return peers
}

// Metrics returns the metrics without labels by their names, and of those with labels
// the sum.
func (d *Daemon) Metrics() map[string]float64 {
	d.lab.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	metrics, err := d.client.Metrics(ctx)
	if err != nil {
		d.lab.t.Fatalf("lab: metrics of %s: %v", d.name, err)
	}
	return metrics
}

// PID returns the daemon's process ID.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Ctl runs p2pctl against the daemon and returns its standard output. The
// error holds what it said on standard error.
func (d *Daemon) Ctl(args ...string) (string, error) {
	cmd := d.host.Command(d.lab.Context(), filepath.Join(d.lab.bin, "p2pctl"), append([]string{"--socket", d.socket()}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("p2pctl %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return out.String(), nil
}

// PeerID returns the daemon's identity in the network.
func (d *Daemon) PeerID() string { return d.started.P2P.PeerID }

// Addrs returns the daemon's addresses for others to bootstrap from, each with
// its peer ID.
func (d *Daemon) Addrs() []string { return d.started.P2P.Addresses }

// URL is the daemon as a substituter.
func (d *Daemon) URL() string { return d.started.Substituter }

// WaitShared waits until the daemon shares at least paths store paths.
func (d *Daemon) WaitShared(paths int) {
	d.lab.t.Helper()
	d.lab.WaitFor(fmt.Sprintf("%s to share %d paths", d.name, paths), func() bool { return d.Status().Store.Shareable >= paths })
}

// WaitAnnounced waits until the daemon shares at least paths store paths and
// the DHT knows of all of them.
func (d *Daemon) WaitAnnounced(paths int) {
	d.lab.t.Helper()
	d.lab.WaitFor(fmt.Sprintf("%s to announce %d paths", d.name, paths), func() bool {
		s := d.Status()
		a := s.P2P.Announcing
		return s.Store.Shareable >= paths && a != nil && a.Keys > s.Store.Shareable && a.Waiting == 0 && a.Regions == 0
	})
}

// Memory is what a process has in memory, in MiB.
type Memory struct {
	// Total includes files that are mapped: the program, and its database.
	Total, Anonymous float64
}

// Memory returns what the daemon's process has in memory at the most and now.
func (d *Daemon) Memory() (peak float64, now Memory) {
	d.lab.t.Helper()
	peak, now, err := memoryOf(d.cmd.Process.Pid)
	if err != nil {
		d.lab.t.Fatalf("lab: %v", err)
	}
	return peak, now
}

func memoryOf(pid int) (peak float64, now Memory, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, Memory{}, err
	}
	for line := range strings.Lines(string(status)) {
		var name string
		var kib float64
		if n, _ := fmt.Sscanf(line, "%s %f kB", &name, &kib); n != 2 {
			continue
		}
		switch name {
		case "VmHWM:":
			peak = kib / 1024
		case "VmRSS:":
			now.Total = kib / 1024
		case "RssAnon:":
			now.Anonymous = kib / 1024
		}
	}
	return peak, now, nil
}
