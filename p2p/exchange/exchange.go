// Package exchange holds the three stream protocols that peers speak about
// NARs, both sides of each:
//
//   - have: which of these NARs do you hold?
//   - narinfo: give me the signed records of these store paths.
//   - nar: a session on one NAR: its manifest, and runs of its chunks.
//
// docs/protocol.md defines them byte for byte; the messages are in package
// wirepb, their limits in limits.go. There is no call that lists what a node
// holds: a peer must name a hash to learn about it.
//
// The server answers from a Shelf, which decides alone what exists for peers.
// The client trusts nothing: it checks what can be checked here (chunks against
// their sums, records against the hash part asked) and bounds the rest. Words
// such as NAR, chunk, manifest and root are those of docs/protocol.md.
package exchange

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// DefaultPrefix begins the protocol IDs on the public network. A private
// network has a prefix of its own, so that a node dialled by mistake never
// learns what was to be asked.
const DefaultPrefix protocol.ID = "/nar-p2p"

// ServiceName is the name of these protocols for libp2p's resource manager.
const ServiceName = "nar-p2p.exchange"

// protocols are the IDs on one network.
type protocols struct{ have, narinfo, nar protocol.ID }

func protocolsOf(prefix protocol.ID) protocols {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return protocols{have: prefix + "/have/1", narinfo: prefix + "/narinfo/1", nar: prefix + "/nar/1"}
}

// Protocols returns the IDs of have, narinfo and nar, in this order, on the
// network with this prefix; "" is DefaultPrefix.
func Protocols(prefix protocol.ID) []protocol.ID {
	ids := protocolsOf(prefix)
	return []protocol.ID{ids.have, ids.narinfo, ids.nar}
}

// Shelf is what a node shows to its peers. A NAR or record that must not leave
// the node does not exist on it. All methods are safe for concurrent use.
type Shelf interface {
	// Held reports whether the NAR is held, and its manifest's root where that
	// is known.
	Held(hash nix.NARHash) (root chunk.Root, rootKnown, held bool)
	// Narinfo returns the record of a store path, or an error that is
	// narstore.ErrNotFound.
	Narinfo(ctx context.Context, part nix.HashPart) (*narinfo.Info, error)
	// Open returns the NAR, or an error that is narstore.ErrNotFound.
	Open(ctx context.Context, hash nix.NARHash) (narstore.NAR, error)
	// Manifest calls emit with successive pieces of the NAR's manifest and
	// returns its root. The error is chunk.ErrCorrupt where the NAR turned out
	// not to have its hash, narstore.ErrNotFound or narstore.ErrChanged where it
	// is not, or no longer, held, and a *narstore.BusyError where there is no room
	// to compute it.
	Manifest(ctx context.Context, hash nix.NARHash, emit func(piece []byte) error) (chunk.Root, error)
}

// Holding is a peer's word on one NAR.
type Holding struct {
	Held bool
	// Root is the root of the NAR's manifest, where RootKnown.
	Root      chunk.Root
	RootKnown bool
}

var (
	// ErrNotHeld says that the peer does not hold, or does not share, the NAR.
	ErrNotHeld = errors.New("exchange: not held by the peer")
	// ErrCorrupt says that the peer found its own copy of the NAR corrupt.
	ErrCorrupt = errors.New("exchange: corrupt at the peer")
	// ErrProtocol says that the peer broke the protocol.
	ErrProtocol = errors.New("exchange: protocol broken by the peer")
	// ErrWrongBytes says that the peer sent a chunk that is not the one asked
	// for. Either its bytes are wrong or the manifest that asked is.
	ErrWrongBytes = errors.New("exchange: wrong bytes from the peer")
	// ErrConnClosed says that a session's connection was closed before the peer has
	// answered, as one of two is that were made at the same moment.
	ErrConnClosed = errors.New("exchange: connection closed before an answer")
)

// BusyError says that the peer has no room now.
type BusyError struct {
	// RetryAfter is when to try again, at most a few minutes.
	RetryAfter time.Duration
}

// Error says when to try again.
func (e *BusyError) Error() string {
	return fmt.Sprintf("exchange: the peer is busy, again in %s", e.RetryAfter)
}
