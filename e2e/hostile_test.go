package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// liar is the shelf of a peer that claims one NAR and does not give it.
type liar struct {
	record *narinfo.Info
	// manifest is what it calls the NAR's manifest.
	manifest []byte
	root     chunk.Root
	// bytes are what it sends as the NAR, read through readAt.
	bytes  []byte
	readAt func(l *liar, p []byte, off int64) (int, error)
	// opened counts how often the NAR was asked for.
	opened atomic.Int32
	// stop is closed when the test ends.
	stop chan struct{}
}

func (l *liar) Held(h nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	held = h == l.record.NARHash
	return l.root, held, held
}

func (l *liar) Narinfo(_ context.Context, part nix.HashPart) (*narinfo.Info, error) {
	if part != l.record.StorePath.HashPart() {
		return nil, narstore.ErrNotFound
	}
	return l.record, nil
}

func (l *liar) Open(context.Context, nix.NARHash) (narstore.NAR, error) {
	l.opened.Add(1)
	return lyingNAR{l}, nil
}

func (l *liar) Manifest(_ context.Context, _ nix.NARHash, emit func([]byte) error) (chunk.Root, error) {
	return l.root, emit(l.manifest)
}

func (l *liar) Follow(ctx context.Context, f func(share.Change) error) error {
	key := share.Key{HashPart: l.record.StorePath.HashPart(), NARHash: l.record.NARHash, NARSize: l.record.NARSize}
	if err := f(share.Change{Added: []share.Key{key}, Settled: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

type lyingNAR struct{ *liar }

func (n lyingNAR) ReadAt(p []byte, off int64) (int, error) { return n.readAt(n.liar, p, off) }
func (n lyingNAR) Size() int64                             { return n.record.NARSize }
func (n lyingNAR) Close() error                            { return nil }

// read gives l.bytes.
func read(l *liar, p []byte, off int64) (int, error) { return bytes.NewReader(l.bytes).ReadAt(p, off) }

// flip changes one bit that no length or token of the archive depends on.
func flip(narBytes []byte) []byte {
	flipped := bytes.Clone(narBytes)
	flipped[len(flipped)/50] ^= 1
	return flipped
}

// manifestOf is the manifest that an honest peer would send for a NAR with
// these bytes, under the NAR hash of the record.
func (l *liar) manifestOf(t *testing.T, narBytes []byte) {
	t.Helper()
	m, err := chunk.Build(t.Context(), bytes.NewReader(narBytes), sha256.Sum256(narBytes), int64(len(narBytes)), func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	m.NARHash = l.record.NARHash
	l.manifest, l.root = m.Encode(), m.Root()
}

// newLiar returns a liar about the largest NAR of the team's closure, which is
// also returned.
func (m *team) newLiar(t *testing.T) (l *liar, honest []byte) {
	t.Helper()
	record := m.closure.Records[0]
	var b bytes.Buffer
	if err := nar.Dump(&b, m.producer.Real(record.StorePath)); err != nil {
		t.Fatal(err)
	}
	l = &liar{record: record, bytes: b.Bytes(), readAt: read, stop: make(chan struct{})}
	return l, b.Bytes()
}

// join brings the liar into the team's network until the test ends.
func (m *team) join(t *testing.T, l *liar) {
	t.Helper()
	m.Peer(m.bootstrap, l)
	// Before the peer is stopped, which waits for its shelf.
	t.Cleanup(func() { close(l.stop) })
}

func TestAHostilePeerCostsARetryAtMost(t *testing.T) {
	for name, corrupt := range map[string]func(t *testing.T, l *liar, honest []byte){
		"wrong bytes": func(t *testing.T, l *liar, honest []byte) {
			t.Helper()
			l.manifestOf(t, honest)
			l.bytes = flip(honest)
		},
		"consistent but wrong manifest": func(t *testing.T, l *liar, honest []byte) {
			t.Helper()
			l.bytes = flip(honest)
			l.manifestOf(t, l.bytes)
		},
		"truncated stream": func(t *testing.T, l *liar, honest []byte) {
			t.Helper()
			l.manifestOf(t, honest)
			l.readAt = func(l *liar, p []byte, off int64) (int, error) {
				if off+int64(len(p)) > int64(len(l.bytes))/2 {
					return 0, errors.New("that was all")
				}
				return read(l, p, off)
			}
		},
		"silence": func(t *testing.T, l *liar, honest []byte) {
			t.Helper()
			l.manifestOf(t, honest)
			l.readAt = func(l *liar, _ []byte, _ int64) (int, error) {
				<-l.stop
				return 0, errors.New("stopped")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTeam(t, 1, 1<<20)
			if err := m.provider.Stop(); err != nil {
				t.Fatal(err)
			}
			l, honest := m.newLiar(t)
			corrupt(t, l, honest)
			m.join(t, l)
			consumer, store := m.consumer()

			kept := filepath.Join(m.upstream.Dir, "nar")
			m.Hide(kept)
			if err := store.Realise(m.root()); err == nil {
				t.Error("realised although only the hostile peer claims the NAR")
			}
			if store.Has(m.root()) {
				t.Fatal("a path from the hostile peer is valid in the store")
			}
			if l.opened.Load() == 0 {
				t.Error("the hostile peer was never asked: the test shows nothing")
			}

			m.Unhide(kept)
			if err := store.Realise(m.root()); err != nil {
				t.Errorf("with an honest upstream: %v", err)
			}
			m.checkSubstituted(t, store)
			if got := consumer.Status().NARBytes; got["upstream"] == 0 {
				t.Errorf("NAR bytes = %v, want some from the upstream", got)
			}
		})
	}
}

// What a liar did not give an honest peer does, though no upstream has it.
func TestAnHonestPeerComesAfterALiar(t *testing.T) {
	m := newTeam(t, 1, 1<<20)
	if err := m.provider.Stop(); err != nil {
		t.Fatal(err)
	}
	l, honest := m.newLiar(t)
	l.bytes = flip(honest)
	l.manifestOf(t, l.bytes)
	m.join(t, l)
	consumer, store := m.consumer()
	m.Hide(filepath.Join(m.upstream.Dir, "nar"))
	if err := store.Realise(m.root()); err == nil {
		t.Error("realised although only the hostile peer claims the NAR")
	}
	if l.opened.Load() == 0 {
		t.Error("the hostile peer was never asked: the test shows nothing")
	}
	m.provider.Start()
	m.provider.WaitAnnounced(1)
	m.WaitFor("the consumer to know the provider", func() bool { return consumer.Speaks(m.provider) })
	if err := store.Realise(m.root()); err != nil {
		t.Errorf("with an honest peer: %v", err)
	}
	m.checkSubstituted(t, store)
	resting := slices.DeleteFunc(consumer.Peers(), func(p control.Peer) bool { return p.RestsUntil == nil })
	if len(resting) != 1 || !resting[0].Exchange {
		t.Errorf("resting: %+v, want the liar", resting)
	}
}

// A peer on the LAN is trusted with streaming, so Nix has the wrong beginning
// of a large NAR before the end shows that it is wrong. Nix then resumes where
// the answer broke off; were the rest served, it would keep the beginning.
func TestNixKeepsNoWrongBeginningOfALargeNAR(t *testing.T) {
	m := newTeam(t, 1, 40<<20)
	if err := m.provider.Stop(); err != nil {
		t.Fatal(err)
	}
	l, honest := m.newLiar(t)
	l.bytes = flip(honest)
	l.manifestOf(t, l.bytes)
	m.join(t, l)

	// Nix also knows a cache that the daemon does not.
	dir := m.Dir("other")
	m.producer.Export(dir, m.root())
	other := m.Upstream(dir)
	m.upstream.RemoveNARs()
	consumer, _ := m.consumer()
	store := m.Nix("nix", lab.NixConfig{Substituters: []string{consumer.URL(), other.URL}, TrustedKeys: m.keys()})

	if err := store.Realise(m.root()); err != nil {
		t.Error(err)
	}
	m.checkSubstituted(t, store)
	if got := consumer.Status().NARBytes["peer"]; got < uint64(len(honest)) {
		t.Errorf("%d bytes came from the hostile peer, want the whole NAR of %d: the test shows nothing", got, len(honest))
	}
	if len(other.Requests("/nar/")) == 0 {
		t.Error("Nix did not go to its other cache")
	}
}
