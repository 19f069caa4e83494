package swarm

import (
	"maps"
	"slices"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// maxDoubted bounds the NARs about whose manifests anything is remembered, and
	// maxDoubts the manifests, and the senders, of each.
	maxDoubted = 1024
	maxDoubts  = 16
)

// doubts remembers manifests that led to nothing, from one transfer to the next.
// It is safe for concurrent use.
type doubts struct {
	mu   sync.Mutex
	nars *lru.LRU[nix.NARHash, *doubted]
}

// doubted is what is remembered of one NAR.
type doubted struct {
	// wrong are the roots of manifests that the whole NAR has proved wrong.
	wrong []chunk.Root
	// roots and senders are of manifests under which a transfer has failed,
	// for whatever reason: others are tried before them.
	roots   []chunk.Root
	senders []peer.ID
}

func newDoubts() *doubts {
	nars, err := lru.NewLRU[nix.NARHash, *doubted](maxDoubted, nil)
	if err != nil {
		panic("swarm: " + err.Error()) // only for a size that is not positive
	}
	return &doubts{nars: nars}
}

// change changes what is remembered of a NAR.
func (d *doubts) change(hash nix.NARHash, f func(*doubted)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	of, ok := d.nars.Get(hash)
	if !ok {
		of = &doubted{}
		d.nars.Add(hash, of)
	}
	f(of)
}

// refute takes note of a manifest that was wrong.
func (d *doubts) refute(hash nix.NARHash, root chunk.Root) {
	d.change(hash, func(of *doubted) { of.wrong = remember(of.wrong, root) })
}

// add takes note of manifests, and senders of some, with which a transfer has
// failed.
func (d *doubts) add(hash nix.NARHash, roots map[chunk.Root]struct{}, senders map[peer.ID]struct{}) {
	if len(roots)+len(senders) == 0 {
		return
	}
	d.change(hash, func(of *doubted) {
		of.roots = remember(of.roots, slices.Collect(maps.Keys(roots))...)
		of.senders = remember(of.senders, slices.Collect(maps.Keys(senders))...)
	})
}

// clear forgets with what transfers have failed: one has succeeded.
func (d *doubts) clear(hash nix.NARHash) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if of, ok := d.nars.Peek(hash); ok {
		of.roots, of.senders = nil, nil
	}
}

// remember adds items, of which the first go where there are too many.
func remember[T comparable](list []T, items ...T) []T {
	for _, item := range items {
		if !slices.Contains(list, item) {
			list = append(list, item)
		}
	}
	return list[max(0, len(list)-maxDoubts):]
}

// of returns what is remembered of a NAR.
func (d *doubts) of(hash nix.NARHash) (roots map[chunk.Root]struct{}, senders map[peer.ID]struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	roots, senders = make(map[chunk.Root]struct{}), make(map[peer.ID]struct{})
	if of, ok := d.nars.Get(hash); ok {
		for _, root := range of.roots {
			roots[root] = struct{}{}
		}
		for _, p := range of.senders {
			senders[p] = struct{}{}
		}
	}
	return roots, senders
}

// refuted reports whether a manifest was wrong.
func (d *doubts) refuted(hash nix.NARHash, root chunk.Root) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	of, ok := d.nars.Peek(hash)
	return ok && slices.Contains(of.wrong, root)
}

// lied reports whether any manifest was wrong.
func (d *doubts) lied(hash nix.NARHash) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	of, ok := d.nars.Peek(hash)
	return ok && len(of.wrong) > 0
}
