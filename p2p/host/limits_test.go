package host

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// One peer fetches 16 NARs at once, each over a session of 900 KiB.
func TestOnePeerMayHaveManySessions(t *testing.T) {
	const id, service = protocol.ID("/nar/1"), "exchange"
	limits, err := newResourceManager(&Config{Protocols: []protocol.ID{id}, Service: service})
	if err != nil {
		t.Fatal(err)
	}
	defer limits.Close()
	const p = peer.ID("p")
	conn, err := limits.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/11.0.0.1/tcp/1"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Done()
	if err := conn.SetPeer(p); err != nil {
		t.Fatal(err)
	}
	for n := range 16 {
		st, err := limits.OpenStream(p, network.DirInbound)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Done()
		if err := st.SetProtocol(id); err != nil {
			t.Fatal(err)
		}
		if err := st.SetService(service); err != nil {
			t.Fatal(err)
		}
		if err := st.ReserveMemory(900<<10, network.ReservationPriorityMedium); err != nil {
			t.Fatalf("session %d: %v", n+1, err)
		}
	}
}

// After its restart a whole office connects with infrastructure at once, from one
// address and over both transports; and with a node that has what the office
// needs, or which restarts itself.
func TestAnOfficeMayConnect(t *testing.T) {
	for _, tt := range []struct {
		addr           string
		infrastructure bool
		conns          int
	}{
		{"/ip4/11.0.0.1", true, 100},
		{"/ip6/2a00:1:1:1::1", true, 100},
		{"/ip4/11.0.0.1", false, 90},
		{"/ip6/2a00:1:1:1::1", false, 90},
	} {
		addr := tt.addr
		limits, err := newResourceManager(&Config{Infrastructure: tt.infrastructure})
		if err != nil {
			t.Fatal(err)
		}
		defer limits.Close()
		for n := range tt.conns {
			conn, err := limits.OpenConnection(network.DirInbound, false, ma.StringCast(fmt.Sprintf("%s/udp/%d/quic-v1", addr, 1000+n)))
			if err != nil {
				t.Fatalf("connection %d from %s: %v", n+1, addr, err)
			}
			defer conn.Done()
			if err := conn.SetPeer(peer.ID(fmt.Sprint("p", n))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A peer that opens streams of one protocol and never says what for gets 64.
func TestStreamsOfOnePeerAreBounded(t *testing.T) {
	const id = protocol.ID("/nar/1")
	limits, err := newResourceManager(&Config{Protocols: []protocol.ID{id}, Service: "exchange"})
	if err != nil {
		t.Fatal(err)
	}
	defer limits.Close()
	opened := 0
	for ; opened < 1000; opened++ {
		st, err := limits.OpenStream("p", network.DirInbound)
		if err != nil {
			break
		}
		defer st.Done()
		if err := st.SetProtocol(id); err != nil {
			break
		}
	}
	if opened != maxProtocolStreams {
		t.Errorf("%d streams were opened, want %d", opened, maxProtocolStreams)
	}
}

// Who has all addresses of the world gets some twice as many connections as a node
// keeps, and one network no more than an office has nodes.
func TestConnectionsAreBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		addr     func(n int) string
		min, max int
	}{
		"from everywhere":  {func(n int) string { return fmt.Sprintf("/ip4/11.%d.%d.1/tcp/1", n/250, n%250) }, 2 * highConns, 3 * highConns},
		"from one address": {func(n int) string { return fmt.Sprintf("/ip4/11.0.0.1/tcp/%d", n+1) }, connsPerNet, connsPerNet},
		"from one network": {func(n int) string { return fmt.Sprintf("/ip6/2a00:1:1:1::%x/tcp/1", n+1) }, connsPerNet, connsPerNet},
	} {
		t.Run(name, func(t *testing.T) {
			limits, err := newResourceManager(&Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer limits.Close()
			opened := 0
			for ; opened < 2000; opened++ {
				conn, err := limits.OpenConnection(network.DirInbound, false, ma.StringCast(tt.addr(opened)))
				if err != nil {
					break
				}
				defer conn.Done()
				if err := conn.SetPeer(peer.ID(fmt.Sprint("p", opened))); err != nil {
					break
				}
			}
			if opened < tt.min || opened > tt.max {
				t.Errorf("%d connections were accepted, want %d to %d", opened, tt.min, tt.max)
			}
		})
	}
}

// Who opens connections from one address, and never says who it is, leaves room for
// others, and gets it back once those have ended.
func TestHandshakesOfOneAddressAreBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		infrastructure bool
		perNet         int
	}{"node": {false, maxSilentPerNet}, "infrastructure": {true, infraMaxSilentPerNet}} {
		t.Run(name, func(t *testing.T) { boundsHandshakes(t, tt.infrastructure, tt.perNet) })
	}
}

func boundsHandshakes(t *testing.T, infrastructure bool, perNet int) {
	t.Helper()
	limits, err := newResourceManager(&Config{Infrastructure: infrastructure})
	if err != nil {
		t.Fatal(err)
	}
	defer limits.Close()
	open := func(addr string) (network.ConnManagementScope, error) {
		return limits.OpenConnection(network.DirInbound, true, ma.StringCast(addr))
	}
	var silent []network.ConnManagementScope
	for range 3 * perNet {
		conn, err := open("/ip4/11.0.0.1/tcp/1")
		if err != nil {
			break
		}
		silent = append(silent, conn)
	}
	if len(silent) != perNet {
		t.Errorf("%d handshakes at once, want %d", len(silent), perNet)
	}
	other, err := open("/ip4/11.0.0.2/tcp/1")
	if err != nil {
		t.Fatalf("another address: %v", err)
	}
	other.Done()
	if err := silent[0].SetPeer("p"); err != nil {
		t.Fatal(err)
	}
	for _, conn := range silent[1:] {
		conn.Done()
		conn.Done() // which means nothing
	}
	defer silent[0].Done()
	for range perNet / 2 {
		conn, err := open("/ip4/11.0.0.1/tcp/1")
		if err != nil {
			t.Fatalf("after the end of the others: %v", err)
		}
		defer conn.Done()
	}
}
