package reuse

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// likeness is how a path's best relative is like it.
type likeness int

const (
	unlike  likeness = iota // there is none
	renamed                 // another version
	rebuilt                 // the same name, built anew
	likenesses
)

const (
	// firstRenamed and firstRebuilt are the shares of a NAR that are expected to be
	// local before any was fetched: other versions differ in most that is code,
	// while most rebuilds are for a dependency's sake.
	firstRenamed = 0.1
	firstRebuilt = 0.7
	// shareWeight is the weight of one more NAR among those before.
	shareWeight = 0.25
	// maxShares is how many NARs are remembered of which it is known.
	maxShares = 4096
)

// learned is what shares of NARs have been local.
type learned struct {
	mu    sync.Mutex
	usual [likenesses]float64
	exact *simplelru.LRU[nix.NARHash, float64]
}

func newLearned() *learned {
	exact, err := simplelru.NewLRU[nix.NARHash, float64](maxShares, nil)
	if err != nil {
		panic("reuse: " + err.Error()) // the size is positive
	}
	return &learned{usual: [likenesses]float64{renamed: firstRenamed, rebuilt: firstRebuilt}, exact: exact}
}

// note takes note of the share of a NAR that was local.
func (l *learned) note(like likeness, share float64) {
	if like == unlike {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.usual[like] += shareWeight * (share - l.usual[like])
}

// know takes note of a share that was found out beforehand.
func (l *learned) know(hash nix.NARHash, share float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exact.Add(hash, share)
}

func (l *learned) expect(hash nix.NARHash, like likeness) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if share, ok := l.exact.Get(hash); ok {
		return share
	}
	return l.usual[like]
}

// likenessOf says how the best of a path's relatives is like it, and which part
// of it that may cover by its size.
func likenessOf(path nix.StorePath, size int64, relatives []member) (like likeness, covers float64) {
	if len(relatives) == 0 || size <= 0 {
		return unlike, 0
	}
	covers = min(1, float64(relatives[0].size)/float64(size))
	if relatives[0].name == path.Name() {
		return rebuilt, covers
	}
	return renamed, covers
}

// Expect says what share of a NAR is expected to be local, from 0 to 1: what was
// found out of it, or else what has been the rule with relatives such as it has.
// It reads nothing and costs some microseconds.
func (x *Index) Expect(path nix.StorePath, hash nix.NARHash, size int64) float64 {
	like, covers := likenessOf(path, size, x.kin.relatives(path, size))
	return covers * x.learned.expect(hash, like)
}
