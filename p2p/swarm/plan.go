package swarm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"

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
	// claims are those who were asked for the manifest and are at it, and whether
	// they are trusted; grown is when it last became longer, or was asked for.
	claims map[peer.ID]bool
	grown  time.Time
	// said are the roots that they have said they have, lapsed that one of them
	// has ended.
	said   map[peer.ID]chunk.Root
	lapsed bool
}

// newPlan returns a plan of which nothing is known. A NAR without a manifest is
// complete at once.
func newPlan(want Want, w *window) *plan {
	p := &plan{
		want: want, window: w, decoder: chunk.NewDecoder(want.Hash, want.Size), sum: sha256.New(),
		claims: make(map[peer.ID]bool), said: make(map[peer.ID]chunk.Root), grown: time.Now(),
	}
	if p.implicit() {
		p.complete = true
		w.extend(p.decoder.Chunks(), nil)
		w.confirm()
	}
	return p
}

// manifestPatience is how long the manifest may fail to grow before another
// provider is asked for it too.
const manifestPatience = time.Second

// maxClaims is how many providers are asked for the manifest at the same time.
const maxClaims = 2

// claim reports whether this provider is to be asked for the manifest: there is
// none yet, and nobody is at it, or they take long. Nothing is used on the word of
// a trusted provider that a stranger would then have to answer for.
func (p *plan) claim(by peer.ID, trusted bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.complete, p.trusted && !trusted, len(p.claims) == maxClaims:
		return false
	case len(p.claims) > 0 && time.Since(p.grown) < manifestPatience && (!trusted || p.trusts()):
		return false
	}
	if _, at := p.claims[by]; at {
		return false
	}
	p.claims[by] = trusted
	p.grown = time.Now()
	return true
}

// trusts reports whether a trusted provider is at it; mu is held.
func (p *plan) trusts() bool {
	for _, trusted := range p.claims {
		if trusted {
			return true
		}
	}
	return false
}

// unclaim says that a provider is no longer at it.
func (p *plan) unclaim(by peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.claims, by)
	p.lapsed = true
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

// outweighed reports whether a root's votes are worth more than those for the
// manifest in use, which is another one. What is preferred, or sent by a trusted
// provider, gives way to none but a trusted one's root.
func (p *plan) outweighed(v *votes, root chunk.Root, most weight, prefer preference) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	used, known := p.likely()
	switch {
	case p.implicit():
		return false
	case known:
	case prefer.known:
		used, known = prefer.root, true
	case p.sender == "":
		return false // whoever is asked may have it
	}
	ours := weight{groups: 1}
	if known {
		ours = v.weight(used)
	}
	ours.trusted = ours.trusted || p.trusted || prefer.sender != ""
	return (!known || used != root) && most.above(ours)
}

// likely returns the manifest's root, or what its sender says that it is; mu is
// held.
func (p *plan) likely() (root chunk.Root, known bool) {
	if p.complete {
		return p.root, true
	}
	root, known = p.said[p.sender]
	return root, known
}

// used returns who has sent the manifest, if anybody has, and its root as far as
// it is known.
func (p *plan) used() (sender peer.ID, root chunk.Root, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	root, known = p.likely()
	return p.sender, root, known
}

// expect takes note of the root that a provider has said it has.
func (p *plan) expect(from peer.ID, root chunk.Root) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said[from] = root
}

// lapse reports whether somebody else is to be asked for the manifest: whoever
// was has failed, or takes long, or nobody was for long.
func (p *plan) lapse() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.complete && (len(p.claims) == 0 && p.lapsed || time.Since(p.grown) >= manifestPatience)
}

// attended reports whether anybody is at the manifest.
func (p *plan) attended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.claims) > 0
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
	defer p.unclaim(s.Peer())
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
	if p.complete { // by another one, with the same bytes
		return nil
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
	if p.trusted && !r.trusted {
		// Bytes may have been used on the word of a trusted peer.
		return errDisagrees
	}
	r.add(piece)
	p.sender, p.trusted = r.sender, r.trusted
	// Another one may go on with the same manifest, which then is its own.
	p.length, p.grown = r.length, time.Now()
	p.sum.Write(piece)
	if _, err := p.decoder.Write(piece); err != nil {
		return fmt.Errorf("%w: %w", exchange.ErrProtocol, err)
	}
	p.window.extend(p.decoder.Chunks(), p.decoder.HashParts())
	return nil
}

func (r *reception) add(b []byte) {
	r.sum.Write(b)
	r.length += int64(len(b))
}
