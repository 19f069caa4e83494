package follow

import "github.com/nar-p2p/nar-p2p/narstore/nix"

// Ledger remembers which paths have been told of and in which state. It takes
// about 100 bytes a path.
type Ledger struct {
	told map[nix.HashPart]entry
	// round counts the complete listings.
	round uint32
}

type entry struct {
	path nix.StorePath
	sum  uint64
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
	return ok && e.sum == sum && l.Keep(part)
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
func (l *Ledger) tell(path nix.StorePath, sum uint64) {
	l.told[path.HashPart()] = entry{path: path, sum: sum, round: l.round}
}

// sweep ends a complete listing. It returns the paths that did not stand in
// it, and forgets them.
func (l *Ledger) sweep() []nix.StorePath {
	var gone []nix.StorePath
	for part, e := range l.told {
		if e.round != l.round {
			gone = append(gone, e.path)
			delete(l.told, part)
		}
	}
	return gone
}
