package locate

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// key is a NAR and who may be asked for it. What strangers said does not serve
// those who must not ask them, and the other way round.
type key struct {
	hash      nix.NARHash
	strangers bool
}

// step is how far an entry has come.
type step int

const (
	// idle: not looked for yet, or given up.
	idle step = iota
	// asking: the sources are asked, or will be.
	asking
	// asked: a source holds it, and the DHT was not searched.
	asked
	// searching: the DHT is searched, or will be.
	searching
	// searched: there is nothing more to try.
	searched
)

// entry is what is known of one key. The Finder's mu guards it.
type entry struct {
	key  key
	step step
	// deep asks to search the DHT although holders are known.
	deep bool
	// holders in the order in which they were found.
	holders []holder
	// refused holds peers that do not hold it, whatever the DHT says.
	refused []peer.ID
	// expires is when a step that ended must be begun anew.
	expires time.Time
	// epoch is the Finder's when the sources were asked.
	epoch uint64
	// changed is closed, and replaced, when anything of the above changes.
	changed chan struct{}
}

// holder is a peer that holds the NAR, by its own word or by the DHT's.
type holder struct {
	peer peer.ID
	own  bool
}

func (e *entry) holder(p peer.ID) int {
	return slices.IndexFunc(e.holders, func(h holder) bool { return h.peer == p })
}

// answered reports whether the peer has said whether it holds the NAR.
func (e *entry) answered(p peer.ID) bool {
	at := e.holder(p)
	return at >= 0 && e.holders[at].own || slices.Contains(e.refused, p)
}

// entry returns the entry of a key, a new one where the old one is stale; mu
// is held.
func (f *Finder) entry(k key) *entry {
	if e, ok := f.entries.Get(k); ok && !f.stale(e) {
		return e
	}
	e := &entry{key: k, changed: make(chan struct{}), epoch: f.epoch}
	f.entries.Add(k, e)
	return e
}

// stale reports whether an entry no longer counts; mu is held.
func (f *Finder) stale(e *entry) bool {
	if e.step != asked && e.step != searched {
		return false
	}
	return !time.Now().Before(e.expires) || len(e.holders) == 0 && e.epoch != f.epoch
}

// searchable reports whether the DHT may be searched; mu is held.
func (f *Finder) searchable(e *entry) bool { return f.cfg.DHT != nil && e.key.strangers }

// advance moves an entry to another step; mu is held.
func (f *Finder) advance(e *entry, to step) {
	e.step = to
	switch to {
	case asking, searching:
		f.open[e] = struct{}{}
	case asked, searched:
		delete(f.open, e)
		ttl := negativeTTL
		if len(e.holders) > 0 {
			ttl = positiveTTL
		}
		e.expires = time.Now().Add(ttl)
	case idle:
		delete(f.open, e)
	}
	e.notify()
}

// hold adds a holder, by its own word or by the DHT's; mu is held.
func (f *Finder) hold(e *entry, p peer.ID, own bool) {
	if at := e.holder(p); at >= 0 {
		e.holders[at].own = e.holders[at].own || own
		return
	}
	if len(e.holders) == maxHolders || slices.Contains(e.refused, p) {
		return
	}
	e.holders = append(e.holders, holder{p, own})
	if e.step == searched { // A late answer.
		e.expires = time.Now().Add(positiveTTL)
	}
	e.notify()
}

// refuse removes a holder for as long as the entry lives; mu is held.
func (f *Finder) refuse(e *entry, p peer.ID) {
	if at := e.holder(p); at >= 0 {
		e.holders = slices.Delete(e.holders, at, at+1)
	}
	if len(e.refused) < maxHolders && !slices.Contains(e.refused, p) {
		e.refused = append(e.refused, p)
	}
	if soon := time.Now().Add(negativeTTL); len(e.holders) == 0 && e.expires.After(soon) {
		e.expires = soon
	}
	e.notify()
}

func (e *entry) notify() {
	close(e.changed)
	e.changed = make(chan struct{})
}
