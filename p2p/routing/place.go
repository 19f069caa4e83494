package routing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sort"
	"sync"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

const (
	// serverLife is how long a server is remembered that no lookup has brought
	// again. A region is explored just before its keys are sent, and sending
	// them takes minutes at most.
	serverLife = time.Hour
	// maxServers bounds how many are remembered, about 150 bytes each. The
	// public network has between 10,000 and 30,000.
	maxServers = 1 << 16
	// A server that maxFailures messages in a row did not reach gets no more
	// until a lookup brings it again.
	maxFailures = 2
	// pruneInterval is how often what is old is forgotten, and how long the
	// provider may be silent in the middle of a key.
	pruneInterval = time.Minute
)

// placement stands between a sweeping provider and the DHT, and sees to it that
// the records of a key go to the servers nearest to it.
//
// Left alone, the provider of go-libp2p-kad-dht v0.38 to v0.42 sends all keys of
// a region to nearly the same servers: it compares the bits of a key from the
// first on with the bits of servers from behind the region's prefix. As soon as
// there is more than one region, at about 45 servers, keys miss some of their
// nearest servers, and a few miss all. docs/discovery.md has figures.
//
// The provider explores a region through GetClosestPeers and then calls
// SendMessage for each key with as many servers as keep a record. So placement
// knows the region's servers when its keys come, and sends each record to one of
// those that should have it: the server that was meant if it is one of them, and
// else one that was not chosen for the key so far. One that does not take a
// record is replaced by the next nearest.
type placement struct {
	pb.MessageSender
	router provider.KadClosestPeersRouter
	book   peerstore.AddrBook
	// copies is how many servers keep a record; at most maxChoice.
	copies int

	mu sync.Mutex
	// servers are those that are known and were not found to be gone, in the
	// order of their places. version counts what came and went.
	servers []server
	version uint32
	// nearest holds the sets of nearest servers that were needed in this
	// version: keys that lie together have the same one.
	nearest map[string]*nearSet
	// open holds the keys for which the provider has more calls to make, by the
	// first bytes of their places. There may be 200,000. The last call came at
	// called.
	open           map[uint64]sending
	called, pruned time.Time
	// bytes is the upload that records have taken.
	bytes int64
}

// place is where a key or a server lies in the key space.
type place [sha256.Size]byte

// placeOf takes the multihash of a key or the ID of a server.
func placeOf(name string) place { return sha256.Sum256([]byte(name)) }

// id is short for a place. That two are the same will not happen by chance, and
// would cost a record.
func (p place) id() uint64 { return binary.BigEndian.Uint64(p[:]) }

func (p place) bit(i int) bool { return p[i/8]>>(7-i%8)&1 == 1 }

type server struct {
	place    place
	id       peer.ID
	seen     time.Time
	failures int
}

// nearSet is the set of servers nearest to some keys.
type nearSet struct{ servers []server }

// maxChoice bounds among how many servers the records of one key are placed.
const maxChoice = 32

// sending is how far the records of one key have been sent.
type sending struct {
	// set is where they go, as of this version of the servers: as many as keep a
	// record, and one more for each that did not take it.
	set     *nearSet
	version uint32
	// chosen and failed have a bit for each of the servers.
	chosen, failed uint32
	// ended counts the provider's calls that have ended.
	ended int
}

func newPlacement(t table) *placement {
	return &placement{
		MessageSender: t.MessageSender(),
		router:        t.IpfsDHT,
		book:          t.Host().Peerstore(),
		copies:        t.BucketSize(),
		nearest:       make(map[string]*nearSet),
		open:          make(map[uint64]sending),
	}
}

var (
	_ provider.KadClosestPeersRouter = (*placement)(nil)
	_ pb.MessageSender               = (*placement)(nil)
)

// GetClosestPeers implements provider.KadClosestPeersRouter. It takes note of
// the servers found.
func (p *placement) GetClosestPeers(ctx context.Context, key string) ([]peer.ID, error) {
	found, err := p.router.GetClosestPeers(ctx, key)
	if err != nil {
		return found, err
	}
	for _, id := range found {
		// Or the addresses would be forgotten before the records are sent.
		p.book.AddAddrs(id, p.book.Addrs(id), peerstore.RecentlyConnectedAddrTTL)
	}
	p.note(found)
	return found, nil
}

// note remembers servers.
func (p *placement) note(found []peer.ID) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prune(now)
	for _, id := range found {
		where := placeOf(string(id))
		at, known := p.find(where)
		switch {
		case known:
			p.servers[at].seen = now
		case len(p.servers) < maxServers:
			p.servers = slices.Insert(p.servers, at, server{place: where, id: id, seen: now})
			p.changed()
		}
	}
}

// prune forgets what is old, now and then; p.mu is held.
func (p *placement) prune(now time.Time) {
	if now.Sub(p.pruned) < pruneInterval {
		return
	}
	p.pruned = now
	before := len(p.servers)
	p.servers = slices.DeleteFunc(p.servers, func(s server) bool { return now.Sub(s.seen) > serverLife })
	if len(p.servers) != before {
		p.changed()
	}
	if now.Sub(p.called) > pruneInterval {
		p.open = make(map[uint64]sending) // What is left was broken off.
	}
}

// changed says that servers came or went; p.mu is held.
func (p *placement) changed() {
	p.version++
	clear(p.nearest)
}

// find returns where in servers a place is or would be; p.mu is held.
func (p *placement) find(where place) (int, bool) {
	return slices.BinarySearchFunc(p.servers, where, func(s server, where place) int {
		return bytes.Compare(s.place[:], where[:])
	})
}

// few reports whether there are so few servers that all of them, and so this
// node if it is one, keep every record.
func (p *placement) few() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.servers) < p.copies
}

// near returns the count servers nearest to a key, or all; p.mu is held.
func (p *placement) near(key place, count int) *nearSet {
	// The distance is decided by the first bit that differs. So the nearest
	// servers are those in a few ranges that share bits with the key.
	var ranges []byte
	lo, hi, missing := 0, len(p.servers), count
	take := func(lo, hi int) {
		ranges = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(ranges, uint32(lo)), uint32(hi))
		missing -= hi - lo
	}
	for bit := 0; hi-lo > missing && missing > 0; bit++ {
		middle := lo + sort.Search(hi-lo, func(i int) bool { return p.servers[lo+i].place.bit(bit) })
		sameLo, sameHi, otherLo, otherHi := lo, middle, middle, hi
		if key.bit(bit) {
			sameLo, sameHi, otherLo, otherHi = middle, hi, lo, middle
		}
		if sameHi-sameLo <= missing {
			take(sameLo, sameHi)
			lo, hi = otherLo, otherHi
		} else {
			lo, hi = sameLo, sameHi
		}
	}
	if missing > 0 {
		take(lo, hi)
	}
	set, ok := p.nearest[string(ranges)]
	if !ok {
		set = &nearSet{}
		p.nearest[string(ranges)] = set
		for ; len(ranges) > 0; ranges = ranges[8:] {
			lo, hi := binary.BigEndian.Uint32(ranges), binary.BigEndian.Uint32(ranges[4:])
			set.servers = append(set.servers, p.servers[lo:hi]...)
		}
	}
	return set
}

// SendMessage implements pb.MessageSender. A record goes to the server that it
// is meant for, or to another that should have it; and where all have it that
// should, to none.
func (p *placement) SendMessage(ctx context.Context, meant peer.ID, msg *pb.Message) error {
	if msg.GetType() != pb.Message_ADD_PROVIDER {
		return p.MessageSender.SendMessage(ctx, meant, msg)
	}
	key := placeOf(string(msg.GetKey()))
	defer p.end(key)
	var err error
	for to, ok := p.begin(key, meant); ok; to, ok = p.another(key, to) {
		if err = p.send(ctx, to, msg); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

// begin takes a call of the provider and returns the server that gets the record,
// if one does.
func (p *placement) begin(key place, meant peer.ID) (peer.ID, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.servers) <= p.copies {
		return meant, true // All of them keep every record.
	}
	p.called = time.Now()
	s, ok := p.open[key.id()]
	if !ok {
		s = sending{set: p.near(key, p.copies), version: p.version}
	}
	to, ok := p.choose(key, &s, meant)
	p.open[key.id()] = s
	return to, ok
}

// another returns the server that gets the record which one did not take.
func (p *placement) another(key place, failed peer.ID) (peer.ID, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.open[key.id()]
	if !ok {
		return "", false
	}
	if at := s.set.index(failed); at >= 0 {
		s.failed |= 1 << at
		p.renew(key, &s)
	}
	to, ok := p.choose(key, &s, "")
	p.open[key.id()] = s
	return to, ok
}

// end takes note that a call has ended.
func (p *placement) end(key place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.open[key.id()]
	if !ok {
		return
	}
	if s.ended++; s.ended < p.copies {
		p.open[key.id()] = s
	} else if delete(p.open, key.id()); len(p.open) == 0 {
		p.open = make(map[uint64]sending) // A map never shrinks.
	}
}

// choose returns a server that should have a record of the key and was not
// chosen before, if possible the one that is meant; p.mu is held.
func (p *placement) choose(key place, s *sending, meant peer.ID) (peer.ID, bool) {
	if s.version != p.version {
		p.renew(key, s)
	}
	choice := -1
	for i := range s.set.servers {
		if s.chosen>>i&1 == 1 {
			continue
		}
		if choice = i; s.set.servers[i].id == meant {
			break
		}
	}
	if choice < 0 {
		return "", false
	}
	s.chosen |= 1 << choice
	return s.set.servers[choice].id, true
}

// renew brings a sending to the present version of the servers, and to the number
// of those that did not take the record; p.mu is held.
func (p *placement) renew(key place, s *sending) {
	old := *s
	count := p.copies
	for i := range old.set.servers {
		if _, known := p.find(old.set.servers[i].place); known && old.failed>>i&1 == 1 {
			count++
		}
	}
	s.set, s.version, s.chosen, s.failed = p.near(key, min(count, maxChoice)), p.version, 0, 0
	for i := range s.set.servers {
		if was := old.set.index(s.set.servers[i].id); was >= 0 {
			s.chosen |= old.chosen >> was & 1 << i
			s.failed |= old.failed >> was & 1 << i
		}
	}
}

// index returns where in the set a server is, or -1.
func (n *nearSet) index(id peer.ID) int {
	return slices.IndexFunc(n.servers, func(s server) bool { return s.id == id })
}

// send sends a record and notes what became of it.
func (p *placement) send(ctx context.Context, to peer.ID, msg *pb.Message) error {
	err := p.MessageSender.SendMessage(ctx, to, msg)
	if errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	where := placeOf(string(to))
	p.mu.Lock()
	defer p.mu.Unlock()
	at, known := p.find(where)
	switch {
	case err == nil:
		p.bytes += int64(messageSize(msg) + framing)
		if known {
			p.servers[at].failures = 0
		}
	case known:
		if p.servers[at].failures++; p.servers[at].failures == maxFailures {
			p.servers = slices.Delete(p.servers, at, at+1)
			p.changed()
		}
	}
	return err
}

// sentBytes is the upload that records have taken.
func (p *placement) sentBytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}
