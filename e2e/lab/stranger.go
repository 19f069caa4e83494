package lab

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/dual"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Stranger is a server of the public network's DHT with a public address, which has
// nothing to do with this project: what libp2p does by default, as a node of IPFS
// does. It is the program of the test that runs once more.
type Stranger struct {
	// ID is its peer ID, and Addrs are addresses to bootstrap from.
	ID    string
	Addrs []string

	host *Host
	cmd  *exec.Cmd
}

// strangerPort is that of IPFS.
const strangerPort = 4001

// strangerEnv is set for a program that is to be a stranger, to a strangerSetup.
const strangerEnv = "NAR_P2P_LAB_STRANGER"

// strangerSetup is what a stranger is told.
type strangerSetup struct {
	Identity []byte
	Addr     string
	// Relays says that it relays, within libp2p's limits.
	Relays bool
	// Known are addresses of those that it joins the DHT by.
	Known []string
}

// Stranger starts one on a host that relays for others or does not.
func (l *Lab) Stranger(host *Host, relays bool, known ...*Stranger) *Stranger {
	l.t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	setup := strangerSetup{Addr: host.elsewhere(), Relays: relays}
	if setup.Identity, err = crypto.MarshalPrivateKey(key); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	for _, s := range known {
		setup.Known = append(setup.Known, s.Addrs...)
	}
	text, err := json.Marshal(setup)
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	s := &Stranger{ID: id.String(), host: host, cmd: host.Command(context.Background(), self)}
	for _, addr := range listenAddrs(setup.Addr) {
		s.Addrs = append(s.Addrs, addr+"/p2p/"+s.ID)
	}
	s.cmd.Env = append(os.Environ(), strangerEnv+"="+string(text))
	host.start(s.cmd)
	host.WaitListening(strangerPort)
	return s
}

// elsewhere gives a host of the Internet an address in a network that it has for
// itself: of those that are in one, the DHT knows three at the most.
func (h *Host) elsewhere() string {
	h.lab.t.Helper()
	addr := "11." + h.Addr[strings.LastIndexByte(h.Addr, '.')+1:] + ".0.1"
	h.lab.ip("-n", h.ns, "addr", "add", addr, "dev", "eth0")
	return addr
}

// Kill ends the stranger without a word.
func (s *Stranger) Kill() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // It may have ended.
}

func listenAddrs(ip string) []string {
	return []string{fmt.Sprintf("/ip4/%s/tcp/%d", ip, strangerPort), fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", ip, strangerPort)}
}

// runStranger is a stranger until the program is told to end.
func runStranger(text string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var setup strangerSetup
	if err := json.Unmarshal([]byte(text), &setup); err != nil {
		return err
	}
	key, err := crypto.UnmarshalPrivateKey(setup.Identity)
	if err != nil {
		return err
	}
	opts := []libp2p.Option{
		libp2p.Identity(key), libp2p.ListenAddrStrings(listenAddrs(setup.Addr)...), libp2p.DisableMetrics(),
		libp2p.ForceReachabilityPublic(), libp2p.EnableNATService(), libp2p.EnableAutoNATv2(),
	}
	if setup.Relays {
		opts = append(opts, libp2p.EnableRelayService())
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return err
	}
	defer h.Close()
	known := make([]peer.AddrInfo, 0, len(setup.Known))
	for _, addr := range setup.Known {
		info, err := peer.AddrInfoFromString(addr)
		if err != nil {
			return err
		}
		known = append(known, *info)
	}
	d, err := dual.New(h, dual.DHTOption(dht.Mode(dht.ModeServer), dht.BootstrapPeers(known...)))
	if err != nil {
		return err
	}
	defer d.Close()
	for _, info := range known {
		dialled, cancel := context.WithTimeout(ctx, time.Minute)
		err := h.Connect(dialled, info)
		cancel()
		if err != nil {
			return err
		}
	}
	if err := d.Bootstrap(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
