package swarm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

// errDisagrees says that a provider has another manifest than the one that the
// transfer keeps to. Which of the two is right nobody knows before the end.
var errDisagrees = errors.New("swarm: the provider has another manifest")

// plan is the manifest of a NAR as far as it is known.
//
// A provider that fails in the middle of it is replaced by one that sends the
// same manifest from the beginning. That one has then vouched for all of it,
// so it is the one to answer for it.
type plan struct {
	want   Want
	window *window

	mu sync.Mutex
	// decoder has taken the first length bytes of the encoding, and sum them too.
	decoder *chunk.Decoder
	length  int64
	sum     hash.Hash
	// sender sent the manifest as far as it goes, and is believed beforehand
	// where trusted is set. It is "" before the first piece.
	sender  peer.ID
	trusted bool
	// root is known once complete is set.
	root     chunk.Root
	complete bool
}

func newPlan(want Want, w *window) *plan {
	p := &plan{want: want, window: w}
	p.restart()
	return p
}

// restart forgets everything. A NAR without a manifest is complete at once.
func (p *plan) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decoder = chunk.NewDecoder(p.want.Hash, p.want.Size)
	p.length, p.sum = 0, sha256.New()
	p.sender, p.trusted, p.root, p.complete = "", false, chunk.Root{}, false
	if p.implicit() {
		p.complete = true
		p.window.extend(p.decoder.Chunks())
		p.window.confirm()
	}
}

// implicit reports whether the NAR is one chunk, whose sum is the NAR hash:
// nothing about it is anybody's word.
func (p *plan) implicit() bool { return p.want.Size <= chunk.ImplicitSize }

// known returns the root where the manifest is complete.
func (p *plan) known() (root chunk.Root, complete bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.root, p.complete
}

// source returns who answers for the manifest.
func (p *plan) source() (sender peer.ID, trusted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sender, p.trusted
}

// receive takes the manifest that a session was asked for and hands its chunks
// to the window while they come.
func (p *plan) receive(s *exchange.Session, trusted bool) error {
	r := reception{plan: p, sum: sha256.New(), sender: s.Peer(), trusted: trusted}
	root, err := s.ReceiveManifest(p.want.Size, r.take)
	if err != nil {
		return err
	}
	return p.finish(&r, root)
}

func (p *plan) finish(r *reception, root chunk.Root) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.length < p.length {
		return errDisagrees
	}
	if _, err := p.decoder.Finish(); err != nil {
		return fmt.Errorf("%w: %w", exchange.ErrProtocol, err)
	}
	p.sender, p.trusted = r.sender, r.trusted
	p.root, p.complete = root, true
	p.window.confirm()
	return nil
}

// reception is one provider's manifest as it comes in.
type reception struct {
	plan    *plan
	sender  peer.ID
	trusted bool
	// sum and length are of what has come in.
	sum    hash.Hash
	length int64
}

// take takes the next piece: first what the plan has already, which must be
// the same, then what is new.
func (r *reception) take(piece []byte) error {
	p := r.plan
	p.mu.Lock()
	defer p.mu.Unlock()
	if again := min(p.length-r.length, int64(len(piece))); again > 0 {
		r.add(piece[:again])
		piece = piece[again:]
		if r.length == p.length && [sha256.Size]byte(r.sum.Sum(nil)) != [sha256.Size]byte(p.sum.Sum(nil)) {
			return errDisagrees
		}
	}
	if len(piece) == 0 {
		return nil
	}
	r.add(piece)
	p.sender, p.trusted = r.sender, r.trusted
	p.length, p.sum = r.length, r.sum
	if _, err := p.decoder.Write(piece); err != nil {
		return fmt.Errorf("%w: %w", exchange.ErrProtocol, err)
	}
	p.window.extend(p.decoder.Chunks())
	return nil
}

func (r *reception) add(b []byte) {
	r.sum.Write(b)
	r.length += int64(len(b))
}
