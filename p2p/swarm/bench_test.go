package swarm_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// BenchmarkFetch fetches a NAR whose manifest is known over loopback. One
// stream without any check makes about 1,000 MB/s over TCP, and 250 over QUIC.
func BenchmarkFetch(b *testing.B) {
	for name, listen := range map[string]string{"TCP": "/ip4/127.0.0.1/tcp/0", "QUIC": "/ip4/127.0.0.1/udp/0/quic-v1"} {
		b.Run(name, func(b *testing.B) {
			const size = 256 << 20
			shelf, hash := benchShelf(b, size)
			provider := exchangetest.NewHost(b, listen)
			server := exchange.NewServer(provider, shelf, exchange.ServerConfig{}, zap.NewNop())
			exchangetest.Run(b, provider, server, exchange.Protocols("")[2])
			client := exchange.NewClient(exchangetest.NewHost(b, listen), exchange.ClientConfig{}, zap.NewNop())
			f := &finder{}
			f.providers = append(f.providers, exchangetest.Info(provider))
			s := swarm.New(client, f, swarm.NewStanding(), swarm.Config{}, zap.NewNop())
			b.SetBytes(size)
			for b.Loop() {
				fetchAll(b, s, hash, size)
			}
		})
	}
}

// BenchmarkFetchLinks fetches over lines that are slower than the machine. The
// share is that of what the lines carry in the time.
func BenchmarkFetchLinks(b *testing.B) {
	const mbit = 1e6 / 8
	for _, bb := range []struct {
		providers int
		rate      float64
		rtt       time.Duration
		size      int
	}{
		{4, 50 * mbit, 20 * time.Millisecond, 64 << 20},
		{1, 100 * mbit, 20 * time.Millisecond, 64 << 20},
		{1, 1000 * mbit, 20 * time.Millisecond, 256 << 20},
	} {
		b.Run(fmt.Sprintf("%dx%.0fMbit", bb.providers, bb.rate/mbit), func(b *testing.B) {
			shelf, hash := benchShelf(b, bb.size)
			f := &finder{}
			for range bb.providers {
				provider := exchangetest.NewHost(b)
				server := exchange.NewServer(provider, shelf, exchange.ServerConfig{}, zap.NewNop())
				exchangetest.Run(b, provider, server, exchange.Protocols("")[2])
				f.providers = append(f.providers, (&link{rate: bb.rate, rtt: bb.rtt}).to(b, provider))
			}
			client := exchange.NewClient(exchangetest.NewHost(b), exchange.ClientConfig{}, zap.NewNop())
			s := swarm.New(client, f, swarm.NewStanding(), swarm.Config{LAN: nowhere}, zap.NewNop())
			b.SetBytes(int64(bb.size))
			var wasted int64
			for b.Loop() {
				wasted += fetchAll(b, s, hash, bb.size).Wasted
			}
			carried := float64(b.N) * float64(bb.size) / b.Elapsed().Seconds()
			b.ReportMetric(carried/(float64(bb.providers)*bb.rate), "share")
			b.ReportMetric(float64(wasted)/float64(b.N)/float64(bb.size), "wasted")
		})
	}
}

func nowhere(ma.Multiaddr) bool { return false }

func benchShelf(b *testing.B, size int) (*exchangetest.Shelf, nix.NARHash) {
	b.Helper()
	shelf, hash := shelve(exchangetest.Bytes(1, size))
	if _, err := shelf.Manifest(b.Context(), hash, func([]byte) error { return nil }); err != nil {
		b.Fatal(err)
	}
	return shelf, hash
}

func fetchAll(b *testing.B, s *swarm.Swarm, hash nix.NARHash, size int) swarm.Progress {
	b.Helper()
	tr, err := s.Open(b.Context(), swarm.Want{Hash: hash, Size: int64(size), Strangers: true})
	if err != nil {
		b.Fatal(err)
	}
	defer tr.Close()
	if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, tr, make([]byte, 128<<10)); err != nil || n != int64(size) {
		b.Fatalf("read %d bytes, %v", n, err)
	}
	return tr.Progress()
}
