package locate

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// kind is a kind of thing to look for.
type kind int

const (
	nars kind = iota
	records
	kinds = iota // how many there are
)

// batch is how many of a kind go into one request.
func (k kind) batch() int { return [...]int{exchange.MaxHashes, exchange.MaxHashParts}[k] }

// String names the kind as the metrics do: by the key in the DHT.
func (k kind) String() string { return [...]string{"content", "metadata"}[k] }

// key is what is looked for and who may be asked for it. What strangers said
// does not serve those who must not ask them, and the other way round.
type key struct {
	kind kind
	// nar or part, by kind.
	nar       nix.NARHash
	part      nix.HashPart
	strangers bool
}

func narKey(h nix.NARHash, strangers bool) key {
	return key{kind: nars, nar: h, strangers: strangers}
}

func recordKey(p nix.HashPart, strangers bool) key {
	return key{kind: records, part: p, strangers: strangers}
}

// cid is the key in the DHT.
func (k key) cid() cid.Cid {
	if k.kind == nars {
		return routing.ContentKey(k.nar)
	}
	return routing.MetadataKey(k.part)
}

func (k key) String() string {
	if k.kind == nars {
		return k.nar.String()
	}
	return k.part.String()
}

// step is how far an entry has come.
type step int

const (
	// idle: not looked for yet, or given up.
	idle step = iota
	// asking: the sources are asked.
	asking
	// asked: a source holds it, and the DHT was not searched.
	asked
	// searching: a walk through the DHT will begin, or is under way.
	searching
	// searched: there is nothing more to try.
	searched
)

// entry is what is known of one key. The Finder's mu guards it.
type entry struct {
	key  key
	step step
	// waiters counts those who wait, of whom the last loses patience at
	// deadline; zero where it is not known.
	waiters  int
	deadline time.Time
	// until is how long it is expected, be it waited for or not.
	until time.Time
	// deep asks to search the DHT although holders are known, glance not to search
	// it.
	deep, glance bool

	// holders in the order in which they were found.
	holders []holder
	// refused holds peers that do not hold it, whatever the DHT says.
	refused []peer.ID
	// tried holds the peers that it was put to, questions those that are still to
	// answer, named those that the DHT has named and that were not asked yet.
	tried     []peer.ID
	questions []question
	named     []peer.ID
	// rest says that the helpers were asked and the other sources were not.
	rest bool

	// began is when the sources were asked, due when they have had their time.
	began, due time.Time
	// grace is until when whoever waits may be content with the last answer.
	grace time.Time
	// hold is until when a walk waits for those that were introduced meanwhile.
	hold time.Time
	// linger is until when the walks of others are waited for; zero for not.
	linger time.Time
	// walkAgain is when a walk may find what the last one did not.
	walkAgain time.Time
	// expires is when a step that ended must be begun anew.
	expires time.Time
	// epoch is the Finder's when the sources were asked.
	epoch uint64
	// changed is closed, and replaced, when anything of the above changes.
	changed chan struct{}
}

// holder is a peer that has it, by its own word or by the DHT's.
type holder struct {
	peer peer.ID
	own  bool
	// record is what the peer gave, for records.
	record *narinfo.Info
}

// question is a peer that is to answer. Named says that only the DHT's word led
// to it.
type question struct {
	peer  peer.ID
	named bool
}

// maxHolders bounds the holders remembered of one NAR: more than the swarm can
// use at once; and the records that are handed on of one path.
const maxHolders = 32

func (e *entry) holder(p peer.ID) int {
	return slices.IndexFunc(e.holders, func(h holder) bool { return h.peer == p })
}

// answered reports whether the peer has said whether it has it.
func (e *entry) answered(p peer.ID) bool {
	at := e.holder(p)
	return at >= 0 && e.holders[at].own || slices.Contains(e.refused, p)
}

// needed reports whether anybody waits for it or expects it.
func (e *entry) needed(now time.Time) bool { return e.waiters > 0 || now.Before(e.until) }

// ended reports whether whoever waits need not wait any longer. For records the
// last answer counts, for a NAR the first will do.
func (e *entry) ended() bool {
	switch e.step {
	case asked:
		return e.key.kind == nars
	case searched:
		return e.key.kind == nars || len(e.questions)+len(e.named) == 0 && e.linger.IsZero()
	default:
		return e.step == idle
	}
}

func (e *entry) notify() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// entry returns the entry of a key, a new one where the old one is stale; mu
// is held.
func (f *Finder) entry(k key) *entry {
	if e, ok := f.entries.Get(k); ok && !f.stale(e) {
		return e
	}
	e := &entry{key: k, changed: make(chan struct{})}
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
func (f *Finder) searchable(e *entry, now time.Time) bool {
	return f.cfg.DHT != nil && e.key.strangers && !now.Before(e.walkAgain)
}

// alive counts the holders that may still be there; mu is held.
func (f *Finder) alive(e *entry) (n int) {
	for _, h := range e.holders {
		if !f.cfg.Ledger.Dead(h.peer) {
			n++
		}
	}
	return n
}

// advance moves an entry to another step; mu is held.
func (f *Finder) advance(e *entry, to step, now time.Time) {
	e.step = to
	if to == asked || to == searched {
		ttl := negativeTTL
		if len(e.holders) > 0 {
			ttl = positiveTTL
		}
		e.expires = now.Add(ttl)
	}
	f.close(e)
	e.notify()
}

// close takes an entry off the open ones once all is said; mu is held.
func (f *Finder) close(e *entry) {
	if e.step != asking && e.step != searching && len(e.questions)+len(e.named) == 0 && e.linger.IsZero() {
		delete(f.open, e)
	}
}

// abandon ends the lookup of an entry that nobody needs any more; mu is held.
func (f *Finder) abandon(e *entry) {
	delete(f.wanted, e)
	delete(f.open, e)
	for _, q := range e.questions {
		f.lines[q.peer].remove(e)
	}
	e.questions, e.named, e.deep = nil, nil, false
	e.until, e.deadline, e.linger = time.Time{}, time.Time{}, time.Time{}
	switch {
	case e.key.kind == records:
		e.holders, e.step = nil, idle
	case e.step == asking || e.step == searching:
		e.step = idle
		f.keep(e)
	}
	e.notify()
	f.endWalks()
	f.poke()
}

// hold adds a holder, by its own word or by the DHT's; mu is held.
func (f *Finder) hold(e *entry, h holder) {
	if at := e.holder(h.peer); at >= 0 {
		e.holders[at].own = e.holders[at].own || h.own
		return
	}
	if slices.Contains(e.refused, h.peer) || len(e.holders) == maxHolders && !f.makeRoom(e, h.peer) {
		return
	}
	e.holders = append(e.holders, h)
	if e.step == searched { // A late answer.
		e.expires = time.Now().Add(positiveTTL)
	}
	f.keep(e)
	e.notify()
}

// keep remembers what was found of a NAR whose lookup was given up; mu is held.
func (f *Finder) keep(e *entry) {
	if e.step == idle && e.key.kind == nars && len(e.holders) > 0 {
		e.step, e.expires = asked, time.Now().Add(positiveTTL)
	}
}

// refuse removes a holder for as long as the entry lives; mu is held.
func (f *Finder) refuse(e *entry, p peer.ID) {
	if at := e.holder(p); at >= 0 {
		e.holders = slices.Delete(e.holders, at, at+1)
	}
	if len(e.refused) < maxSources+maxHolders && !slices.Contains(e.refused, p) {
		e.refused = append(e.refused, p)
	}
	if soon := time.Now().Add(negativeTTL); len(e.holders) == 0 && e.expires.After(soon) {
		e.expires = soon
	}
	e.notify()
}
