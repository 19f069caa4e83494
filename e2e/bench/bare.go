package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

const bareProtocol = "/bare/1"

// bareStream returns how many MB/s come over one stream of libp2p, with TCP and
// TLS on loopback, to a receiver that hashes them.
func bareStream(ctx context.Context, size int64) (float64, error) {
	sender, err := bareHost()
	if err != nil {
		return 0, err
	}
	defer sender.Close()
	receiver, err := bareHost()
	if err != nil {
		return 0, err
	}
	defer receiver.Close()
	block := make([]byte, 128<<10)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(block) // Never fails.
	sender.SetStreamHandler(bareProtocol, func(s network.Stream) {
		for left := size; left > 0; left -= int64(len(block)) {
			if _, err := s.Write(block[:min(left, int64(len(block)))]); err != nil {
				_ = s.Reset()
				return
			}
		}
		_ = s.Close()
	})
	if err := receiver.Connect(ctx, peer.AddrInfo{ID: sender.ID(), Addrs: sender.Addrs()}); err != nil {
		return 0, err
	}
	began := time.Now()
	s, err := receiver.NewStream(ctx, sender.ID(), bareProtocol)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if err := s.CloseWrite(); err != nil {
		return 0, err
	}
	hash, buffer := sha256.New(), make([]byte, 128<<10)
	got, err := io.CopyBuffer(struct{ io.Writer }{hash}, struct{ io.Reader }{s}, buffer)
	if err == nil && got != size {
		err = errors.New("the stream of libp2p ended early")
	}
	return float64(size) / 1e6 / time.Since(began).Seconds(), err
}

func bareHost() (host.Host, error) {
	return libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(tls.ID, tls.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.DisableRelay(), libp2p.DisableMetrics(),
	)
}
