package lab

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Machine is a computer that somebody has just set up: the programs of this one,
// a home without a file in it, and a Nix that has fetched nothing, with /nix and
// /etc/nix of its own and the settings that it comes with. The ports are all
// free, and its network is that of a Host.
type Machine struct {
	lab   *Lab
	host  *Host
	dir   string
	binds []string
	env   []string
}

// machineHome is where the owner of a Machine is at home.
const machineHome = "/home/user"

// Machine sets one up. Names are addresses that it knows beside those that the
// lab's hosts have.
func (h *Host) Machine(name string, names map[string]string) *Machine {
	h.lab.t.Helper()
	m := &Machine{lab: h.lab, host: h, dir: h.lab.Dir("machine-" + name)}
	hosts := []string{"127.0.0.1 localhost"}
	for host, addr := range names {
		hosts = append(hosts, addr+" "+host)
	}
	h.lab.write(m.Path("hosts"), strings.Join(hosts, "\n")+"\n")
	m.binds = []string{"--die-with-parent", "--unshare-pid"}
	m.see("/", "dev", "etc", "home", "nix", "proc", "run", "sys", "tmp")
	m.see("/etc", "hosts", "nix")
	m.binds = append(
		m.binds, "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
		"--ro-bind", m.Path("hosts"), "/etc/hosts",
	)
	for _, dir := range []string{"/nix", "/run", "/etc/nix", machineHome} {
		m.Bind(h.lab.Dir(filepath.Join(filepath.Base(m.dir), dir)), dir)
	}
	m.env = []string{"HOME=" + machineHome, "LANG=C.UTF-8", "PATH=" + machineHome + "/.local/bin:" + os.Getenv("PATH")}
	if h.lab.certificate != "" {
		m.binds = append(m.binds, "--ro-bind", h.lab.certificate, h.lab.certificate)
		m.env = append(m.env, "SSL_CERT_FILE="+h.lab.certificate, "NIX_SSL_CERT_FILE="+h.lab.certificate)
	}
	return m
}

// see has the machine see what is in a folder of this one, but for some of it.
func (m *Machine) see(dir string, except ...string) {
	m.lab.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		m.lab.t.Fatalf("lab: %v", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch target, err := os.Readlink(path); {
		case slices.Contains(except, e.Name()):
		case err == nil:
			m.binds = append(m.binds, "--symlink", target, path)
		default:
			m.binds = append(m.binds, "--ro-bind", path, path)
		}
	}
}

// Share has the machine see a folder of this one where it is here.
func (m *Machine) Share(dir string) { m.binds = append(m.binds, "--ro-bind", dir, dir) }

// Path is where a file of the machine's own lies on this one.
func (m *Machine) Path(file string) string { return filepath.Join(m.dir, file) }

// Bind gives the machine a folder of this one, to write to.
func (m *Machine) Bind(dir, at string) { m.binds = append(m.binds, "--bind", dir, at) }

// Setenv sets a variable of the environment of all its commands to come.
func (m *Machine) Setenv(name, value string) { m.env = append(m.env, name+"="+value) }

// Command prepares a line for the machine's shell, in a folder.
func (m *Machine) Command(ctx context.Context, dir, line string) *exec.Cmd {
	args := append(slices.Clone(m.binds), "--chdir", dir, "sh", "-euc", line)
	cmd := m.host.Command(ctx, "bwrap", args...)
	cmd.Env = m.env
	return cmd
}

// MustRun runs a line of the machine's shell, and returns what it has said.
func (m *Machine) MustRun(dir, line string) string {
	m.lab.t.Helper()
	out, err := m.Command(m.lab.Context(), dir, line).CombinedOutput()
	if err != nil {
		m.lab.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// Start starts a line of the machine's shell that ends with the test.
func (m *Machine) Start(dir, line string) {
	m.lab.t.Helper()
	m.host.start(m.Command(context.Background(), dir, line))
}

// Client speaks HTTP as a program on the host does.
func (h *Host) Client() *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = inNamespace(h.ns, func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}
	h.lab.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// ServeTLS serves dir, a folder that is a binary cache, at port 443 of the host
// under a name. What the lab makes later trusts the certificate, and no other.
func (h *Host) ServeTLS(name, dir string) {
	h.lab.t.Helper()
	certificate, err := newCertificate(name)
	if err != nil {
		h.lab.t.Fatalf("lab: %v", err)
	}
	var listener net.Listener
	err = inNamespace(h.ns, func() error {
		listener, err = new(net.ListenConfig).Listen(h.lab.t.Context(), "tcp", net.JoinHostPort(h.Addr, "443"))
		return err
	})
	if err != nil {
		h.lab.t.Fatalf("lab: %v", err)
	}
	h.lab.trust(certificate.Certificate[0])
	server := &http.Server{
		Handler:   http.FileServer(http.Dir(dir)),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}
	go func() { _ = server.ServeTLS(listener, "", "") }() // Ends when closed.
	h.lab.t.Cleanup(func() { _ = server.Close() })
}
