package e2e_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// BenchmarkInfrastructure measures what an infrastructure node needs for each
// node that leans on it: of memory for a connection, for a reservation at its
// relay and for a record in the DHT, and of traffic for a node that joins.
func BenchmarkInfrastructure(b *testing.B) {
	const nodes, records = 200, 200_000
	for b.Loop() {
		l := lab.New(b)
		d := l.Daemon("infrastructure", lab.DaemonConfig{Infrastructure: true})
		rest := memory(b, d)
		b.ReportMetric(float64(rest)/1e6, "MB-at-rest")

		var hosts []host.Host
		for range nodes {
			h := newClient(b, d)
			defer h.Close()
			hosts = append(hosts, h)
		}
		connected := memory(b, d)
		b.ReportMetric(float64(connected-rest)/nodes/1e3, "KB/connection")

		for _, h := range hosts {
			reserve(b, h, d)
		}
		reserved := memory(b, d)
		b.ReportMetric(float64(reserved-connected)/nodes/1e3, "KB/reservation")
		var sent, received int64
		for _, p := range d.Peers() {
			sent, received = sent+p.Sent, received+p.Received
		}
		b.ReportMetric(float64(sent+received)/nodes/1e3, "KB-traffic/join")

		start := time.Now()
		provide(b, hosts[0], d, records)
		b.ReportMetric(records/time.Since(start).Seconds(), "records/s")
		b.ReportMetric(float64(memory(b, d)-reserved)/1e6, "MB-for-records")
	}
}

// newClient makes a host that is connected with the daemon.
func newClient(b *testing.B, d *lab.Daemon) host.Host {
	b.Helper()
	h, err := libp2p.New(libp2p.ProtocolVersion(routing.Family("lab")), libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.ResourceManager(nil))
	if err != nil {
		b.Fatal(err)
	}
	if err := h.Connect(b.Context(), d.AddrInfo()); err != nil {
		b.Fatal(err)
	}
	return h
}

// reserve reserves a place at the daemon's relay, which starts a moment after it.
func reserve(b *testing.B, h host.Host, d *lab.Daemon) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), lab.Patience)
	defer cancel()
	for {
		_, err := client.Reserve(ctx, h, d.AddrInfo())
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			b.Fatal(err)
		}
	}
}

// provide puts records into the daemon's part of the DHT.
func provide(b *testing.B, h host.Host, d *lab.Daemon, records int) {
	b.Helper()
	kad, err := dht.New(h, dht.Mode(dht.ModeClient), dht.ProtocolPrefix(routing.Prefix("lab")), dht.AddressFilter(nil), dht.DisableValues())
	if err != nil {
		b.Fatal(err)
	}
	defer kad.Close()
	for kad.RoutingTable().Size() == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	messenger, err := pb.NewProtocolMessenger(kad.MessageSender())
	if err != nil {
		b.Fatal(err)
	}
	self := peer.AddrInfo{ID: h.ID(), Addrs: d.AddrInfo().Addrs}
	for range records {
		var hash nix.NARHash
		_, _ = rand.Read(hash[:]) // It never fails.
		if err := messenger.PutProviderAddrs(b.Context(), d.AddrInfo().ID, routing.ContentKey(hash).Hash(), self); err != nil {
			b.Fatal(err)
		}
	}
}

// memory is what the daemon has in memory, in bytes, once that has settled.
func memory(b *testing.B, d *lab.Daemon) int64 {
	b.Helper()
	for last := int64(-1); ; {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", d.PID()))
		if err != nil {
			b.Fatal(err)
		}
		now := int64(-1)
		for line := range strings.Lines(string(text)) {
			if _, err := fmt.Sscanf(line, "Rss: %d kB", &now); err == nil {
				break
			}
		}
		if now == last {
			return now * 1024
		}
		last = now
		time.Sleep(2 * time.Second)
	}
}
