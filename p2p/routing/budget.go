package routing

import (
	"context"
	"math"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// framing is what a message costs in bytes beside its own: 32 were measured for
// yamux and TLS, and the rest is its share of TCP and IP headers.
const framing = 60

// turnInterval is how often it is looked whether a new cycle has begun. One long
// timer would be late on a machine that sleeps.
const turnInterval = 10 * time.Minute

// budget announces as many keys as some upload allows, by value. It chooses none
// before it was told to measure what a record costs: after a restart it must not
// drop keys that it can afford. All methods but progress must not be called at
// the same time.
type budget struct {
	self peer.ID
	// addrs returns what the node announces.
	addrs func() []ma.Multiaddr
	// copies is how many servers keep a record.
	copies int
	// perDay is in bytes.
	perDay int64
	plan   *plan
	rarity rarity
	// recordBytes is what a record is taken to cost; 0 before it was measured.
	recordBytes int

	mu     sync.Mutex
	counts counts
}

func newBudget(s *sweeper, perDay int64, seen *sightings, store ds.Datastore) *budget {
	b := &budget{
		self:   s.PeerID(),
		addrs:  s.selfAddrs,
		copies: s.BucketSize(),
		perDay: perDay,
		rarity: rarity{sightings: seen, store: store},
	}
	b.plan = newPlan(b.self, b.rarity.of)
	return b
}

var _ source = (*budget)(nil)

// change implements source.
func (b *budget) change(ctx context.Context, c *share.Change) (delta, error) {
	if b.rarity.kept == nil {
		if err := b.rarity.load(ctx); err != nil {
			return delta{}, err
		}
	}
	if err := b.rarity.learn(ctx, c.Added); err != nil {
		return delta{}, err
	}
	gone := b.plan.apply(c)
	if len(c.Removed) > 0 {
		if err := b.rarity.keep(ctx, b.plan.holds); err != nil {
			return delta{}, err
		}
	}
	if b.recordBytes == 0 {
		b.note(counts{chosen: b.plan.len()})
		return delta{}, nil
	}
	d := b.choose(false)
	d.gone = append(d.gone, gone...)
	return d, nil
}

// measure chooses anew for what a record costs now. There must have been an
// address to announce.
func (b *budget) measure() delta { return b.choose(true) }

// choose chooses the keys. What a record costs is measured anew only if it has
// risen, or if remeasure is set: keys that are dropped and come back a moment
// later cost as much as new ones.
func (b *budget) choose(remeasure bool) delta {
	size := recordBytes(peer.AddrInfo{ID: b.self, Addrs: b.addrs()})
	if size > b.recordBytes || remeasure {
		b.recordBytes = size
	}
	d, c := b.plan.choose(affordable(b.perDay, b.recordBytes*b.copies), time.Now())
	b.note(c)
	return d
}

func (b *budget) note(c counts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts = c
}

// progress implements source.
func (b *budget) progress(context.Context) (Progress, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Progress{Keys: b.counts.chosen, Skipped: b.counts.skipped, Resting: b.counts.resting}, nil
}

// messageSize is how many bytes a message takes on a stream.
func messageSize(msg *pb.Message) int { return protowire.SizeBytes(proto.Size(msg)) }

// recordBytes is how many bytes of upload it takes to send one record to one
// server.
func recordBytes(self peer.AddrInfo) int {
	msg := pb.NewMessage(pb.Message_ADD_PROVIDER, ContentKey(nix.NARHash{}).Hash(), 0)
	msg.ProviderPeers = pb.RawPeerInfosToPBPeers([]peer.AddrInfo{self})
	return messageSize(msg) + framing
}

// affordable is how many keys can be announced in each cycle for so many bytes a
// day.
func affordable(perDay int64, bytesPerKey int) int {
	perCycle := float64(perDay) * float64(cycle) / float64(24*time.Hour)
	return int(min(perCycle/float64(bytesPerKey), math.MaxInt32))
}
