package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kubo is the reference node of IPFS with a repository of its own. `make
// interop` builds it, and so does BuildKubo.
type Kubo struct {
	lab     *Lab
	name    string
	host    *Host
	program string
	dir     string
}

// KuboConfig is how a node of kubo is set up.
type KuboConfig struct {
	// Host is where it runs; nil means on this machine's loopback.
	Host *Host
	// Routing is kubo's Routing.Type.
	Routing string
	// Routers are the endpoints that it asks in the way of "delegated".
	Routers []string
	// Bootstrap is the only peer that it knows, if there is one.
	Bootstrap *Daemon
}

// BuildKubo builds kubo where that was not done yet, which takes minutes.
func (l *Lab) BuildKubo() error {
	cmd := exec.CommandContext(l.t.Context(), "make", "--silent", filepath.Join(moduleRoot(), ".tools", "ipfs"))
	cmd.Dir = moduleRoot()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build kubo: %w\n%s", err, out)
	}
	return nil
}

// Kubo starts a node of kubo and waits until it answers.
func (l *Lab) Kubo(name string, cfg KuboConfig) *Kubo {
	l.t.Helper()
	k := &Kubo{
		lab: l, name: name, host: cfg.Host, dir: l.Dir("kubo-" + name),
		program: filepath.Join(moduleRoot(), ".tools", "ipfs"),
	}
	addr, bootstrap := "127.0.0.1", []string{}
	if cfg.Host != nil {
		addr = cfg.Host.Addr
	}
	if cfg.Bootstrap != nil {
		bootstrap = cfg.Bootstrap.Addrs()
	}
	// Nothing of the real network: no addresses, no relays, no names.
	k.must("init", "--profile=autoconf-off")
	for key, value := range map[string]any{
		"Addresses.API":          []string{"/ip4/127.0.0.1/tcp/0"},
		"Addresses.Gateway":      []string{},
		"Addresses.Swarm":        []string{"/ip4/" + addr + "/tcp/0", "/ip4/" + addr + "/udp/0/quic-v1"},
		"AutoTLS.Enabled":        false,
		"Bootstrap":              bootstrap,
		"Discovery.MDNS.Enabled": false,
		// Else it would ask only whom the DHT names, or who is near.
		"Internal.Bitswap":          map[string]any{"BroadcastControl": map[string]any{"Enable": false}},
		"Provide.Enabled":           strings.HasPrefix(cfg.Routing, "dht"), // With "delegated" it insists.
		"Routing.Type":              cfg.Routing,
		"Routing.DelegatedRouters":  append([]string{}, cfg.Routers...),
		"Swarm.DisableNatPortMap":   true,
		"Swarm.RelayClient.Enabled": false,
		"Version.SwarmCheckEnabled": false,
	} {
		text, err := json.Marshal(value)
		if err != nil {
			l.t.Fatalf("lab: %v", err)
		}
		k.must("config", "--json", key, string(text))
	}
	k.start()
	return k
}

// start starts the node and waits until it answers.
func (k *Kubo) start() {
	k.lab.t.Helper()
	log, err := os.Create(filepath.Join(k.dir, "log"))
	if err != nil {
		k.lab.t.Fatalf("lab: %v", err)
	}
	defer func() { _ = log.Close() }() // The child has its own.
	daemon := k.command(context.Background(), "daemon")
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		k.lab.t.Fatalf("lab: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		err = daemon.Wait()
		close(exited)
	}()
	k.lab.t.Cleanup(func() {
		_ = daemon.Cancel() // It may have ended.
		<-exited
		if text, err := os.ReadFile(log.Name()); k.lab.t.Failed() {
			k.lab.t.Logf("log of kubo %s (%v):\n%s", k.name, err, text)
		}
	})
	k.lab.WaitFor("kubo to answer", func() bool {
		select {
		case <-exited:
			k.lab.t.Fatalf("lab: kubo %s has ended: %v", k.name, err)
		default:
		}
		// Asking it any earlier would take the lock of its repository.
		text, err := os.ReadFile(log.Name())
		return err == nil && bytes.Contains(text, []byte("Daemon is ready"))
	})
}

func (k *Kubo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := k.host.Command(ctx, k.program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + k.dir, "IPFS_PATH=" + filepath.Join(k.dir, "repo"), "IPFS_TELEMETRY=off"}
	return cmd
}

// Run runs the program `ipfs` and returns its standard output. The error holds
// what it said on standard error.
func (k *Kubo) Run(args ...string) (string, error) {
	cmd := k.command(k.lab.Context(), args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("ipfs %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (k *Kubo) must(args ...string) string {
	k.lab.t.Helper()
	out, err := k.Run(args...)
	if err != nil {
		k.lab.t.Fatalf("lab: %v", err)
	}
	return out
}

// PeerID returns the node's identity.
func (k *Kubo) PeerID() string { return k.must("config", "Identity.PeerID") }

// Discard is Run that throws away what the program prints.
func (k *Kubo) Discard(ctx context.Context, args ...string) error {
	cmd := k.command(ctx, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ipfs %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return nil
}

// Connect connects the node with another one.
func (k *Kubo) Connect(other *Kubo) {
	k.lab.t.Helper()
	k.must("swarm", "connect", strings.Fields(other.must("id", "-f", "<addrs>"))[0])
}
