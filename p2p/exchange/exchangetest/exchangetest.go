// Package exchangetest is for tests of what speaks the stream protocols: a
// shelf in memory, hosts on loopback, and the framing written once more, for
// peers that do not behave.
package exchangetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Shelf holds NARs and records in memory. Its zero value is empty and ready. It
// is safe for concurrent use.
type Shelf struct {
	mu    sync.Mutex
	nars  map[nix.NARHash]*shelved
	infos map[nix.HashPart]*narinfo.Info
}

type shelved struct {
	data []byte
	// manifest is nil until it was computed.
	manifest *chunk.Manifest
}

// Add adds a NAR, whose manifest is computed when it is first asked for.
func (s *Shelf) Add(nar []byte) nix.NARHash {
	hash := nix.NARHash(sha256.Sum256(nar))
	s.AddAs(hash, nar)
	return hash
}

// AddAs adds bytes as the NAR with a hash that may not be theirs.
func (s *Shelf) AddAs(hash nix.NARHash, nar []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nars == nil {
		s.nars = make(map[nix.NARHash]*shelved)
	}
	s.nars[hash] = &shelved{data: nar}
}

// AddNarinfo adds a record.
func (s *Shelf) AddNarinfo(info *narinfo.Info) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.infos == nil {
		s.infos = make(map[nix.HashPart]*narinfo.Info)
	}
	s.infos[info.StorePath.HashPart()] = info
}

func (s *Shelf) get(hash nix.NARHash) (nar *shelved, manifest *chunk.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if nar = s.nars[hash]; nar != nil {
		manifest = nar.manifest
	}
	return nar, manifest
}

// Held is part of exchange.Shelf.
func (s *Shelf) Held(hash nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	nar, manifest := s.get(hash)
	if manifest != nil {
		root = manifest.Root()
	}
	return root, manifest != nil, nar != nil
}

// Size returns the size of a NAR in bytes.
func (s *Shelf) Size(hash nix.NARHash) (size int64, held bool) {
	nar, _ := s.get(hash)
	if nar == nil {
		return 0, false
	}
	return int64(len(nar.data)), true
}

// Narinfo is part of exchange.Shelf.
func (s *Shelf) Narinfo(_ context.Context, part nix.HashPart) (*narinfo.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if info := s.infos[part]; info != nil {
		return info, nil
	}
	return nil, narstore.ErrNotFound
}

// Open is part of exchange.Shelf.
func (s *Shelf) Open(_ context.Context, hash nix.NARHash) (narstore.NAR, error) {
	nar, _ := s.get(hash)
	if nar == nil {
		return nil, narstore.ErrNotFound
	}
	return openNAR{bytes.NewReader(nar.data)}, nil
}

// Manifest is part of exchange.Shelf.
func (s *Shelf) Manifest(ctx context.Context, hash nix.NARHash, emit func([]byte) error) (chunk.Root, error) {
	nar, manifest := s.get(hash)
	switch {
	case nar == nil:
		return chunk.Root{}, narstore.ErrNotFound
	case manifest != nil:
		return manifest.Root(), emit(manifest.Encode())
	}
	manifest, err := chunk.Build(ctx, bytes.NewReader(nar.data), hash, int64(len(nar.data)), emit)
	if err != nil {
		return chunk.Root{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	nar.manifest = manifest
	return manifest.Root(), nil
}

type openNAR struct{ *bytes.Reader }

func (openNAR) Close() error { return nil }

// Bytes returns bytes that no compression shortens, the same for the same seed.
func Bytes(seed byte, size int) []byte {
	b := make([]byte, size)
	// Read never fails.
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// NewHost returns a host that listens on these addresses, by default on TCP of
// 127.0.0.1, until the test ends.
func NewHost(tb testing.TB, listen ...string) host.Host {
	tb.Helper()
	if len(listen) == 0 {
		listen = []string{"/ip4/127.0.0.1/tcp/0"}
	}
	return newHost(tb, libp2p.ListenAddrStrings(listen...))
}

// NewMember is NewHost of a family of protocols (routing.Family), without which
// the nodes of a private network send a host away.
func NewMember(tb testing.TB, family string) host.Host {
	tb.Helper()
	options := []libp2p.Option{libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0")}
	if family != "" {
		options = append(options, libp2p.ProtocolVersion(family))
	}
	return newHost(tb, options...)
}

func newHost(tb testing.TB, options ...libp2p.Option) host.Host {
	tb.Helper()
	h, err := libp2p.New(append(options, libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery())...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = h.Close() })
	return h
}

// Connect connects two hosts.
func Connect(tb testing.TB, from, to host.Host) {
	tb.Helper()
	if err := from.Connect(tb.Context(), Info(to)); err != nil {
		tb.Fatal(err)
	}
}

// Info returns the ID and addresses of a host.
func Info(h host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

// Append appends messages, each behind its length.
func Append(b []byte, messages ...proto.Message) []byte {
	for _, m := range messages {
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			panic(err)
		}
		b = append(binary.AppendUvarint(b, uint64(len(body))), body...)
	}
	return b
}

// Read reads one message behind its length.
func Read(r *bufio.Reader, m proto.Message) error {
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return err
	}
	if length > 4<<20 {
		return fmt.Errorf("message of %d bytes", length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return proto.Unmarshal(body, m)
}

// Run runs a server until the test ends, or until the function that it returns
// is called, which waits for the end. It returns once h speaks the protocol.
func Run(tb testing.TB, h host.Host, server interface{ Run(context.Context) error }, id protocol.ID) (stop func()) {
	tb.Helper()
	updates, err := h.EventBus().Subscribe(new(event.EvtLocalProtocolsUpdated))
	if err != nil {
		tb.Fatal(err)
	}
	defer updates.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("Run() = %v", err)
		}
	})
	tb.Cleanup(stop)
	for update := range updates.Out() {
		if u, ok := update.(event.EvtLocalProtocolsUpdated); ok && slices.Contains(u.Added, id) {
			break
		}
	}
	return stop
}
