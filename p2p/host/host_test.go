package host_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/crypto"
	libp2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"github.com/nar-p2p/nar-p2p/p2p/host"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestIdentityIsMadeOnceAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity")
	first, err := host.LoadOrCreateIdentity(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := host.LoadOrCreateIdentity(path)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Equals(second) || first.Type() != crypto.Ed25519 {
		t.Errorf("second load gave another key, or one of type %v", first.Type())
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode is %v, want 0600", info.Mode())
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("%d files are left in the folder, want 1", len(entries))
	}
}

func TestIdentityRefusesUnsafeAndMalformedFiles(t *testing.T) {
	original := filepath.Join(t.TempDir(), "identity")
	if _, err := host.LoadOrCreateIdentity(original); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := crypto.GenerateKeyPair(crypto.RSA, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsa, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		data []byte
		mode fs.FileMode
		want string
	}{
		{"group can read", good, 0o640, "mode 0640"},
		{"world can read", good, 0o604, "mode 0604"},
		{"empty", nil, 0o600, "malformed"},
		{"cut", good[:30], 0o600, "malformed"},
		{"not a key", bytes.Repeat([]byte("key "), 4000), 0o600, "malformed"},
		{"another kind of key", rsa, 0o600, "RSA"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "identity")
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			_, err := host.LoadOrCreateIdentity(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("LoadOrCreateIdentity(...) = %v, want an error with %q and the path", err, tt.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, tt.data) {
				t.Error("the refused file was changed")
			}
		})
	}
	t.Run("directory", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := host.LoadOrCreateIdentity(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("LoadOrCreateIdentity(directory) = %v", err)
		}
	})
}

func TestIsLAN(t *testing.T) {
	for addr, want := range map[string]bool{
		"/ip4/10.1.2.3/tcp/1":                                  true,
		"/ip4/172.16.0.1/udp/1/quic-v1":                        true,
		"/ip4/172.32.0.1/udp/1/quic-v1":                        false,
		"/ip4/192.168.1.1/tcp/1":                               true,
		"/ip4/127.0.0.1/tcp/1":                                 true,
		"/ip4/169.254.1.1/tcp/1":                               true,
		"/ip4/100.64.0.1/tcp/1":                                false,
		"/ip4/8.8.8.8/tcp/1":                                   false,
		"/ip6/::1/tcp/1":                                       true,
		"/ip6/fe80::1/tcp/1":                                   true,
		"/ip6zone/eth0/ip6/fe80::1/tcp/1":                      true,
		"/ip6/fd00::1/tcp/1":                                   true,
		"/ip6/::ffff:192.168.1.1/tcp/1":                        true,
		"/ip6/2001:db8::1/tcp/1":                               false,
		"/dns4/localhost/tcp/1":                                false,
		"/ip4/192.168.1.1/tcp/1/p2p/" + relay + "/p2p-circuit": false,
	} {
		if got := host.IsLAN(ma.StringCast(addr)); got != want {
			t.Errorf("IsLAN(%s) = %v, want %v", addr, got, want)
		}
	}
	if host.IsLAN(nil) {
		t.Error("IsLAN(nil) = true")
	}
}

const relay = "12D3KooWGRUaRbRxHWMCVEHAF8MHNJWwJrXMZ3y1TMEFxyq6sjZ7"

func TestAnnounced(t *testing.T) {
	all := []string{
		"/ip4/127.0.0.1/tcp/8461",
		"/ip6/::1/tcp/8461",
		"/ip6/fe80::1/tcp/8461",
		"/ip4/192.168.1.7/tcp/8461",
		"/ip4/8.8.8.8/tcp/4001/p2p/" + relay + "/p2p-circuit",
	}
	for _, tt := range []struct {
		name   string
		listen []string
		want   []string
	}{
		{"everywhere", []string{"/ip4/0.0.0.0/tcp/8461", "/ip6/::/tcp/8461"}, all[3:]},
		{"loopback and more", []string{"/ip4/127.0.0.1/tcp/8461", "/ip4/192.168.1.7/tcp/8461"}, all[3:]},
		{"loopback only", []string{"/ip4/127.0.0.1/tcp/8461", "/ip6/::1/tcp/8461"}, slices.Concat(all[:2], all[3:])},
		{"nothing", nil, all[3:]},
	} {
		got := host.Announced(addrs(tt.listen))(addrs(all))
		if diff := cmp.Diff(addrs(tt.want), got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
		}
	}
}

func addrs(s []string) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range s {
		out = append(out, ma.StringCast(a))
	}
	return out
}

// start makes a host on loopback.
func start(t *testing.T, cfg host.Config) libp2phost.Host {
	t.Helper()
	if cfg.Identity == nil {
		cfg.Identity = identity(t)
	}
	if cfg.Listen == nil {
		cfg.Listen = addrs([]string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"})
	}
	h, err := host.New(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func identity(t *testing.T) crypto.PrivKey {
	t.Helper()
	key, err := host.LoadOrCreateIdentity(filepath.Join(t.TempDir(), "identity"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func info(h libp2phost.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

func TestTCPIsPreferredNearby(t *testing.T) {
	a, b := start(t, host.Config{}), start(t, host.Config{})
	if err := a.Connect(t.Context(), info(b)); err != nil {
		t.Fatal(err)
	}
	for _, c := range a.Network().ConnsToPeer(b.ID()) {
		if _, err := c.RemoteMultiaddr().ValueForProtocol(ma.P_TCP); err != nil {
			t.Errorf("connected over %v, want TCP", c.RemoteMultiaddr())
		}
		if state := c.ConnState(); state.Security != "/tls/1.0.0" {
			t.Errorf("secured by %v, want TLS", state.Security)
		}
	}
	quic := info(b)
	quic.Addrs = quic.Addrs[1:]
	c := start(t, host.Config{})
	if err := c.Connect(t.Context(), quic); err != nil {
		t.Errorf("connect over QUIC: %v", err)
	}
}

func TestMembersAlone(t *testing.T) {
	member, stranger := start(t, host.Config{}), start(t, host.Config{})
	var left atomic.Bool
	isMember := func(p peer.ID) bool { return p == member.ID() && !left.Load() }
	club := start(t, host.Config{Member: isMember})
	if err := member.Connect(t.Context(), info(club)); err != nil {
		t.Errorf("a member cannot connect: %v", err)
	}
	if err := club.Connect(t.Context(), info(stranger)); err == nil {
		t.Error("a stranger was dialled")
	}
	// The refusal may come after the stranger's own handshake has ended; a
	// stream must not open in any case.
	if err := stranger.Connect(t.Context(), info(club)); err == nil {
		if _, err := stranger.NewStream(t.Context(), club.ID(), "/ipfs/ping/1.0.0"); err == nil {
			t.Error("a stranger opened a stream")
		}
	}

	// Who leaves is thrown out, and stays out.
	if n := host.DropOutsiders(club, isMember); n != 0 {
		t.Errorf("dropped %d peers, want none", n)
	}
	left.Store(true)
	if n := host.DropOutsiders(club, isMember); n != 1 || len(club.Network().Peers()) != 0 {
		t.Errorf("dropped %d peers, want the former member; connected with %v", n, club.Network().Peers())
	}
	if err := club.Connect(t.Context(), info(member)); err == nil {
		t.Error("a former member was dialled")
	}
}

func TestLANOnlyStaysThere(t *testing.T) {
	h, other := start(t, host.Config{LANOnly: true}), start(t, host.Config{})
	if err := h.Connect(t.Context(), info(other)); err != nil {
		t.Errorf("cannot connect on the local network: %v", err)
	}
	away := peer.AddrInfo{ID: peer.ID("away"), Addrs: addrs([]string{"/ip4/8.8.8.8/tcp/8461"})}
	err := h.Connect(context.Background(), away)
	if err == nil || !strings.Contains(err.Error(), "gater") {
		t.Errorf("Connect(beyond the local network) = %v, want the gater's refusal", err)
	}
	if speaks(h, hop) || speaks(h, dcutr) {
		t.Error("relays or punches holes")
	}
}

const (
	hop   protocol.ID = "/libp2p/circuit/relay/0.2.0/hop"
	dcutr protocol.ID = "/libp2p/dcutr"

	autonat protocol.ID = "/libp2p/autonat/1.0.0"
)

func speaks(h libp2phost.Host, id protocol.ID) bool { return slices.Contains(h.Mux().Protocols(), id) }

func TestOnlyInfrastructureRelays(t *testing.T) {
	infra := start(t, host.Config{Infrastructure: true})
	if !speaks(infra, autonat) {
		t.Error("infrastructure does not test others' reachability")
	}
	hidden, dialer := start(t, host.Config{}), start(t, host.Config{})
	if err := hidden.Connect(t.Context(), info(infra)); err != nil {
		t.Fatal(err)
	}
	// The service starts a moment after the host.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, err := client.Reserve(ctx, hidden, info(infra))
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no reservation: %v", err)
		}
	}
	through := fmt.Sprintf("%s/p2p/%s/p2p-circuit", infra.Addrs()[0], infra.ID())
	err := dialer.Connect(network.WithAllowLimitedConn(ctx, "test"), peer.AddrInfo{ID: hidden.ID(), Addrs: addrs([]string{through})})
	if err != nil {
		t.Errorf("no connection through the relay: %v", err)
	}

	workstation := start(t, host.Config{Listen: addrs([]string{"/ip4/0.0.0.0/tcp/0"}), Relays: []peer.AddrInfo{info(infra)}})
	if speaks(workstation, hop) || speaks(workstation, autonat) {
		t.Error("a workstation relays or tests others' reachability")
	}
}

func TestPreSharedKey(t *testing.T) {
	key := pnet.PSK(bytes.Repeat([]byte{0xa5}, 32))
	listen := []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	left, dropped := host.WithoutQUIC(addrs(listen))
	if diff := cmp.Diff([][]ma.Multiaddr{addrs(listen[:1]), addrs(listen[1:])}, [][]ma.Multiaddr{left, dropped}); diff != "" {
		t.Errorf("WithoutQUIC (-want +got)\n%s", diff)
	}
	a, b := start(t, host.Config{PSK: key, Listen: left}), start(t, host.Config{PSK: key, Listen: left})
	if err := a.Connect(t.Context(), info(b)); err != nil {
		t.Errorf("two that have the key cannot connect: %v", err)
	}
	without := start(t, host.Config{Listen: left})
	other := start(t, host.Config{PSK: bytes.Repeat([]byte{1}, 32), Listen: left})
	// Neither side notices that the other does not make sense.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var tries sync.WaitGroup
	for name, h := range map[string]libp2phost.Host{"without a key": without, "with another key": other} {
		tries.Go(func() {
			if err := h.Connect(ctx, info(a)); err == nil {
				t.Errorf("one %s connected", name)
			}
		})
		tries.Go(func() {
			if err := a.Connect(ctx, info(h)); err == nil {
				t.Errorf("one %s was connected with", name)
			}
		})
	}
	tries.Wait()
}
