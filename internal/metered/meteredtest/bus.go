// Package meteredtest is a real D-Bus with a NetworkManager on it that says what a
// test wants. It needs dbus-daemon.
package meteredtest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
)

const config = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path=SOCKET</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
`

// Bus is a D-Bus of its own, which need not run.
type Bus struct {
	dir  string
	stop func()
}

// New returns a bus that does not run.
func New() (*Bus, error) {
	dir, err := os.MkdirTemp("", "bus") // a socket's path must be short
	return &Bus{dir: dir, stop: func() {}}, err
}

// Address is where the bus is, once it runs.
func (b *Bus) Address() string { return "unix:path=" + filepath.Join(b.dir, "socket") }

// Start starts it.
func (b *Bus) Start() error {
	socket, file := filepath.Join(b.dir, "socket"), filepath.Join(b.dir, "config")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "SOCKET", socket)), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(context.Background(), "dbus-daemon", "--config-file="+file, "--nofork", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("dbus-daemon (Debian package dbus): %w", err)
	}
	b.stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		_ = os.Remove(socket)
	}
	_, err = bufio.NewReader(out).ReadString('\n')
	return err
}

// Stop ends it, if it runs.
func (b *Bus) Stop() {
	b.stop()
	b.stop = func() {}
}

// Close ends it and leaves nothing behind.
func (b *Bus) Close() error {
	b.Stop()
	return os.RemoveAll(b.dir)
}

// Manager is who has the name of NetworkManager on a bus.
type Manager struct {
	conn  *dbus.Conn
	props *prop.Properties
}

const name = "org.freedesktop.NetworkManager"

// Manager takes the name, and says this of the connection: a uint32, if it is to be
// understood.
func (b *Bus) Manager(verdict any) (*Manager, error) {
	conn, err := dbus.Connect(b.Address())
	if err != nil {
		return nil, err
	}
	props, err := prop.Export(conn, "/org/freedesktop/NetworkManager", prop.Map{name: {
		"Metered": {Value: verdict, Emit: prop.EmitTrue},
	}})
	if err != nil {
		return nil, err
	}
	reply, err := conn.RequestName(name, dbus.NameFlagDoNotQueue)
	if err == nil && reply != dbus.RequestNameReplyPrimaryOwner {
		err = fmt.Errorf("the name is somebody else's: %v", reply)
	}
	return &Manager{conn, props}, err
}

// Say changes what it says, and has it tell all who listen.
func (m *Manager) Say(verdict uint32) { m.props.SetMust(name, "Metered", verdict) }

// Close gives the name back.
func (m *Manager) Close() error { return m.conn.Close() }
