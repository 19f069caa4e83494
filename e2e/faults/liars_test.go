package faults

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// peerOfOne is the shelf of a real node that holds one NAR, and whose answers a
// trial spoils.
type peerOfOne struct {
	record *narinfo.Info
	// bytes are what it sends as the NAR, of which it says that it has size.
	bytes []byte
	size  int64
	// manifest is what it calls the NAR's manifest, and root what it tells of it.
	manifest []byte
	root     chunk.Root
	// at is called when it comes to a stage.
	at func(stage)
	// stop is closed when the trial ends.
	stop chan struct{}
}

// stage is where in a transfer a peer is.
type stage string

const (
	toTell     stage = "when it is asked what it holds"
	toVouch    stage = "when it is asked for a record"
	toOpen     stage = "before it opens the NAR"
	toManifest stage = "in the manifest"
	toBegin    stage = "before the first byte"
	toGoOn     stage = "in the middle"
)

var _ interface {
	Held(h nix.NARHash) (root chunk.Root, rootKnown, held bool)
	Follow(ctx context.Context, f func(share.Change) error) error
} = (*peerOfOne)(nil)

func (p *peerOfOne) Held(h nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	p.at(toTell)
	held = h == p.record.NARHash
	return p.root, held, held
}

func (p *peerOfOne) Narinfo(_ context.Context, part nix.HashPart) (*narinfo.Info, error) {
	p.at(toVouch)
	if part != p.record.StorePath.HashPart() {
		return nil, narstore.ErrNotFound
	}
	return p.record, nil
}

func (p *peerOfOne) Open(context.Context, nix.NARHash) (narstore.NAR, error) {
	p.at(toOpen)
	return openOfOne{p}, nil
}

func (p *peerOfOne) Manifest(_ context.Context, _ nix.NARHash, emit func([]byte) error) (chunk.Root, error) {
	half := len(p.manifest) / 2
	if err := emit(p.manifest[:half]); err != nil {
		return chunk.Root{}, err
	}
	p.at(toManifest)
	return p.root, emit(p.manifest[half:])
}

func (p *peerOfOne) Follow(ctx context.Context, f func(share.Change) error) error {
	key := share.Key{HashPart: p.record.StorePath.HashPart(), NARHash: p.record.NARHash, NARSize: p.record.NARSize}
	if err := f(share.Change{Added: []share.Key{key}, Settled: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

type openOfOne struct{ *peerOfOne }

func (o openOfOne) ReadAt(p []byte, off int64) (int, error) {
	o.at(toBegin)
	if off > int64(len(o.bytes))/2 {
		o.at(toGoOn)
	}
	select {
	case <-o.stop:
		return 0, errors.New("the trial is over")
	default:
	}
	return bytes.NewReader(o.bytes).ReadAt(p, off)
}

func (o openOfOne) Size() int64  { return o.size }
func (o openOfOne) Close() error { return nil }

// manifestOf makes its manifest that of these bytes, under the hash and size of
// the record.
func (p *peerOfOne) manifestOf(t *testing.T, b []byte) {
	t.Helper()
	m, err := chunk.Build(t.Context(), bytes.NewReader(b), sha256.Sum256(b), int64(len(b)), func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	m.NARHash = p.record.NARHash
	p.manifest, p.root = m.Encode(), m.Root()
}

// peerOfOne starts a peer that holds the single NAR and answers as spoilt, and a
// consumer that knows it. What the upstream has of NARs it gives only once the
// peer has been asked for the NAR, or has come to a stage.
func (c *trial) peerOfOne(spoil func(t *testing.T, p *peerOfOne)) (*lab.Daemon, *lab.Nix) {
	c.t.Helper()
	record := c.ground.single.Root()
	archive, err := os.ReadFile(filepath.Join(c.ground.cache, record.URL))
	if err != nil {
		c.t.Fatal(err)
	}
	p := &peerOfOne{record: record, bytes: archive, size: record.NARSize, stop: make(chan struct{})}
	p.manifestOf(c.t, archive)
	c.upstream.Hold(lab.NAR)
	asked := sync.OnceFunc(c.upstream.Release)
	p.at = func(stage) { asked() }
	spoil(c.t, p)
	node := c.Peer(nil, p)
	// Before the peer ends, which waits for its shelf.
	c.t.Cleanup(func() { close(p.stop) })
	status := node.Status()
	var known []string
	for _, addr := range status.Announced {
		known = append(known, addr.String()+"/p2p/"+status.PeerID.String())
	}
	d, store := c.consumer(lab.DaemonConfig{Known: known})
	c.WaitFor("the consumer to speak with the peer", func() bool {
		for _, other := range d.Peers() {
			if other.ID == status.PeerID.String() && other.Exchange {
				return true
			}
		}
		return false
	})
	return d, store
}

// lies are the faults of peers that say what is not so.
func lies() []fault {
	// The manifest of a peer of one's own network is believed until the end of the NAR.
	// By then Nix has the rest: it must not resume behind it, and goes elsewhere.
	const wrongManifest = "lies about the manifest"
	lie := func(name string, spoil func(t *testing.T, p *peerOfOne)) fault {
		return fault{area: ofPeers, name: name, meet: func(t *testing.T, c *trial) string {
			t.Helper()
			asked := make(chan struct{})
			d, store := c.peerOfOne(func(t *testing.T, p *peerOfOne) {
				t.Helper()
				spoil(t, p)
				before := p.at
				once := sync.OnceFunc(func() { close(asked) })
				p.at = func(s stage) {
					before(s)
					once()
				}
			})
			if name == wrongManifest {
				store.Use(d.URL(), c.upstream.URL)
			}
			c.realise(store, c.ground.single.Root().StorePath)
			select {
			case <-asked:
			default:
				t.Error("the peer was not asked: the trial shows nothing")
			}
			if name == wrongManifest {
				return "Nix's other substituter"
			}
			needs(t, d, "upstream")
			return givers(d)
		}}
	}
	return []fault{
		lie("lies about the bytes", func(_ *testing.T, p *peerOfOne) { p.bytes = flipped(p.bytes) }),
		lie(wrongManifest, func(t *testing.T, p *peerOfOne) {
			t.Helper()
			p.bytes = flipped(p.bytes)
			p.manifestOf(t, p.bytes)
		}),
		lie("lies about the size", func(t *testing.T, p *peerOfOne) {
			t.Helper()
			p.bytes = p.bytes[:len(p.bytes)/2]
			p.size = int64(len(p.bytes))
			p.manifestOf(t, p.bytes)
		}),
		lie("lies about the root", func(_ *testing.T, p *peerOfOne) { p.root[0] ^= 1 }),
	}
}

// flipped changes a bit on which no length of the archive depends.
func flipped(archive []byte) []byte {
	other := bytes.Clone(archive)
	other[len(other)/3] ^= 1
	return other
}

// stalls are those of peers that fall silent.
func stalls() (all []fault) {
	for _, where := range []stage{toTell, toOpen, toManifest, toBegin, toGoOn} {
		all = append(all, fault{area: ofPeers, name: "stalls " + string(where), meet: func(t *testing.T, c *trial) string {
			t.Helper()
			d, store := c.peerOfOne(func(_ *testing.T, p *peerOfOne) {
				reached := p.at
				p.at = func(s stage) {
					if s == where {
						reached(s)
						<-p.stop
					}
				}
			})
			c.realise(store, c.ground.single.Root().StorePath)
			needs(t, d, "upstream")
			return givers(d)
		}})
	}
	return append(all,
		fault{area: ofPeers, name: "stalls in the handshake", meet: stallsInHandshake},
		fault{area: ofPeers, name: "stalls " + string(toVouch), meet: stallsInRecord},
	)
}

func stallsInHandshake(t *testing.T, c *trial) string {
	t.Helper()
	w := c.Wire(tcpOf(t, c.ground.provider))
	w.After(0, lab.Stall, nil)
	d, store := c.consumer(lab.DaemonConfig{Known: []string{knownAt(t, w, c.ground.provider)}})
	select {
	case <-w.Tripped():
	case <-time.After(lab.Patience):
		t.Fatal("the peer was not dialled")
	}
	c.realise(store, c.ground.single.Root().StorePath)
	needs(t, d, "upstream")
	return givers(d)
}

// stallsInRecord has a peer asked for a record, because the upstream gives none.
func stallsInRecord(t *testing.T, c *trial) string {
	t.Helper()
	asked := make(chan struct{})
	d, store := c.peerOfOne(func(_ *testing.T, p *peerOfOne) {
		once := sync.OnceFunc(func() { close(asked) })
		p.at = func(s stage) {
			if s == toVouch {
				once()
				<-p.stop
			}
		}
	})
	c.upstream.Release()
	c.upstream.Fail(lab.ServerError, lab.Narinfo)
	healthy := c.Upstream(c.ground.cache)
	store.Use(d.URL(), healthy.URL)
	c.realise(store, c.ground.single.Root().StorePath)
	select {
	case <-asked:
	default:
		t.Error("the peer was not asked: the trial shows nothing")
	}
	return "Nix's other substituter"
}
