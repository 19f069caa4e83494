// Package swarm fetches one NAR from the peers that provide it, chunk by chunk.
//
// A transfer has these parts, each in a file of its own:
//
//   - candidates: the providers that a Finder names, as they can be reached;
//   - attempt: one try at the NAR, under one manifest. It has several providers
//     at work at once, and replaces those that fail;
//   - plan: the manifest as far as a provider has sent it, the only thing that
//     says what a right chunk is; votes: which manifest others have;
//   - window: the part of the NAR between the reader and what was never asked
//     for. It takes verified chunks in any order and hands the bytes on in order;
//   - schedule: who is to ask for which chunks of the window; flow: how many, from
//     what was measured of the provider;
//   - worker: asks one provider, and checks what comes;
//   - local: takes chunks from this machine's own store instead;
//   - restart: another attempt, under another manifest, as long as nobody has
//     seen a byte of this one; doubts: what later transfers should know.
//
// docs/swarm.md explains how providers are chosen and their work is shared out.
//
// A manifest is signed by nobody: only the whole NAR proves it. So a transfer
// says whether its manifest has earned that bytes are used before the end
// (Transfer.Earned), and wants to hear how it ended (Transfer.Verdict), which
// decides the standing of the manifest's sender.
package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

const (
	// maxProviders is how many providers a transfer tries, and how many it asks
	// for their roots.
	maxProviders = 8
	// maxCandidates is how many providers a transfer dials.
	maxCandidates = 32
	// defaultWindow is how far a transfer is ahead of who reads, in bytes: a third
	// of a second at a gigabit.
	defaultWindow = 32 << 20
)

// ErrNoProviders says that nobody could be found, and reached, who holds the
// NAR.
var ErrNoProviders = errors.New("swarm: no provider")

// Finder knows who provides what.
type Finder interface {
	// Providers returns the providers of a NAR, the best first, while they are
	// found. It ends when all are, or when ctx ends. Unless strangers is set,
	// nobody but trusted peers is named, or asked.
	Providers(ctx context.Context, hash nix.NARHash, strangers bool) iter.Seq[peer.AddrInfo]
	// Holders returns the providers that are known now, the best first, and asks
	// nobody.
	Holders(hash nix.NARHash) []peer.ID
	// Forget tells that the peer does not provide the NAR after all.
	Forget(hash nix.NARHash, p peer.ID)
}

// Want says what to fetch.
type Want struct {
	Hash nix.NARHash
	// Path is the store path, as far as it is known: it tells what the NAR may be
	// similar to.
	Path nix.StorePath
	// References are what it refers to, as far as they are known.
	References []nix.StorePath
	// Size of the whole NAR in bytes, as signed.
	Size int64
	// Offset is where to begin, in bytes, below Size.
	Offset int64
	// Strangers allows to ask peers that are not trusted.
	Strangers bool
}

// Config sets up a Swarm.
type Config struct {
	// Trusted reports whether the peer at this address, to which there is a
	// direct connection, is believed beforehand: it is allow-listed, a member of
	// a private network or on the same LAN. The address is nil where there is no
	// connection yet. Nil trusts nobody.
	Trusted func(p peer.ID, addr ma.Multiaddr) bool
	// LAN reports whether an address is one of the local network. Nil: those are
	// that nobody can be reached at from elsewhere.
	LAN func(addr ma.Multiaddr) bool
	// Memory is what windows take their room from; nil is one of their own.
	Memory *budget.Budget
	// Window bounds how far one NAR may be ahead of who reads it, in bytes; 0 is
	// 32 MiB.
	Window int64
	// Reuse finds chunks in this machine's own store. Nil: all are fetched.
	Reuse *reuse.Index
	// Registerer receives metrics. Nil: none are made.
	Registerer prometheus.Registerer
}

// Swarm fetches NARs from peers. It is safe for concurrent use.
type Swarm struct {
	client   *exchange.Client
	finder   Finder
	standing *Standing
	cfg      Config
	log      *zap.Logger
	memory   *memory
	doubts   *doubts
	metrics
}

// New returns a swarm that asks by way of client those whom finder names.
func New(client *exchange.Client, finder Finder, standing *Standing, cfg Config, log *zap.Logger) *Swarm {
	if cfg.Trusted == nil {
		cfg.Trusted = func(peer.ID, ma.Multiaddr) bool { return false }
	}
	if cfg.LAN == nil {
		cfg.LAN = manet.IsPrivateAddr
	}
	return &Swarm{
		client:   client,
		finder:   finder,
		standing: standing,
		cfg:      cfg,
		log:      log.Named("swarm"),
		memory:   &memory{Budget: cmp.Or(cfg.Memory, budget.New(0)), window: cmp.Or(cfg.Window, defaultWindow)},
		doubts:   newDoubts(),
		metrics:  newMetrics(cfg.Registerer),
	}
}

// Open begins to fetch a NAR and returns once the first chunk is there and
// verified against a manifest, which the transfer then keeps to. The transfer
// ends with ctx and must be closed. The error is ErrNoProviders where nobody was
// found, or nobody could be reached.
func (s *Swarm) Open(ctx context.Context, want Want) (*Transfer, error) {
	switch {
	case want.Size <= 0 || want.Size > chunk.MaxNARSize:
		return nil, fmt.Errorf("swarm: no NAR of %d bytes is exchanged", want.Size)
	case want.Offset < 0 || want.Offset >= want.Size:
		return nil, fmt.Errorf("swarm: offset %d in a NAR of %d bytes", want.Offset, want.Size)
	}
	if err := s.memory.Acquire(ctx, budget.Least, leastRoom(want)); err != nil {
		return nil, fmt.Errorf("swarm: %w", err)
	}
	t := s.newTransfer(ctx, want)
	t.start(ctx)
	if err := t.awaitStart(); err != nil {
		_ = t.Close()
		return nil, err
	}
	return t, nil
}

// leastRoom is what a transfer takes in any case.
func leastRoom(want Want) int64 {
	return min(want.Size+(want.Size/chunk.MinSize+1)*bufferStep, leastWindow)
}

// onLAN reports whether a peer is connected on the local network.
func (s *Swarm) onLAN(p peer.ID) bool {
	addr, direct := s.client.DirectAddr(p)
	return direct && s.cfg.LAN(addr)
}

// via says which way a session takes.
func (s *Swarm) via(session *exchange.Session) string {
	switch {
	case session.Path() == exchange.PathRelay:
		return ViaRelay
	case s.cfg.LAN(session.RemoteAddr()):
		return ViaLAN
	default:
		return ViaDirect
	}
}

// trusted reports whether the word of a peer at this address suffices.
func (s *Swarm) trusted(p peer.ID, addr ma.Multiaddr) bool {
	return s.cfg.Trusted(p, addr) || s.standing.Honest(p)
}
