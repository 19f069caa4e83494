package follow

import (
	"encoding/binary"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Ledger remembers which paths have been told of and in which state. It takes
// about 60 bytes a path.
type Ledger struct {
	told map[nix.HashPart]entry
	// round counts the complete listings.
	round uint32
}

type entry struct {
	// sum is a uint64, which together with its key would take 8 bytes more for
	// its alignment.
	sum [8]byte
	// round is the last complete listing in which the path stood.
	round uint32
}

// Begin starts a complete listing: every path that is not mentioned from here
// on is one that Sweep returns.
func (l *Ledger) Begin() { l.round++ }

// Seen notes that a path stands in the listing, and reports whether it has
// been told of in just this state. If not, it should be told.
func (l *Ledger) Seen(part nix.HashPart, sum uint64) bool {
	e, ok := l.told[part]
	return ok && binary.NativeEndian.Uint64(e.sum[:]) == sum && l.Keep(part)
}

// Keep is Seen for a listing that has only names: any state will do.
func (l *Ledger) Keep(part nix.HashPart) bool {
	e, ok := l.told[part]
	if ok && e.round != l.round {
		e.round = l.round
		l.told[part] = e
	}
	return ok
}

// tell notes that a path is being told of in this state.
func (l *Ledger) tell(part nix.HashPart, sum uint64) {
	e := entry{round: l.round}
	binary.NativeEndian.PutUint64(e.sum[:], sum)
	l.told[part] = e
}

// sweep ends a complete listing. It returns the paths that did not stand in
// it, and forgets them.
func (l *Ledger) sweep() []nix.HashPart {
	var gone []nix.HashPart
	for part, e := range l.told {
		if e.round != l.round {
			gone = append(gone, part)
			delete(l.told, part)
		}
	}
	return gone
}
