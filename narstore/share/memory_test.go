package share_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// store is a narstore.Store in memory.
type store struct {
	mu    sync.Mutex
	infos map[nix.HashPart]*narstore.PathInfo
	nars  map[nix.HashPart][]byte
	// updates is all that followers have been told so far or will be.
	updates []narstore.Update
	listing bool          // whether the first listing is still going on
	paused  chan struct{} // if not nil, nobody who follows hears anything until it is closed
	changed chan struct{} // closed and replaced at every change
	reads   int           // calls of Info and Open
	open    int           // NARs that are open
	// hold, if not nil, keeps Open waiting until it is closed.
	hold chan struct{}
	// damaged makes reads at its offset and behind it fail, as if the file there
	// had gone; 0 is none.
	damaged int64
	// failure is what such reads fail with, if not nil.
	failure error
	// written is when files were last written to.
	written time.Time
}

func newStore() *store {
	return &store{
		infos:   make(map[nix.HashPart]*narstore.PathInfo),
		nars:    make(map[nix.HashPart][]byte),
		changed: make(chan struct{}),
	}
}

func (s *store) tell(u narstore.Update) {
	s.updates = append(s.updates, u)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *store) add(paths ...*path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var u narstore.Update
	for _, p := range paths {
		part := p.info.Path.HashPart()
		s.infos[part], s.nars[part] = p.info, p.nar
		u.Added = append(u.Added, p.info)
	}
	s.tell(u)
}

// alter changes a path, or removes it where p is nil, without telling yet.
func (s *store) alter(part nix.HashPart, p *path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.infos, part)
	delete(s.nars, part)
	if p != nil {
		s.infos[part], s.nars[part] = p.info, p.nar
	}
}

func (s *store) remove(paths ...*path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var u narstore.Update
	for _, p := range paths {
		delete(s.infos, p.info.Path.HashPart())
		delete(s.nars, p.info.Path.HashPart())
		u.Removed = append(u.Removed, p.info.Path.HashPart())
	}
	s.tell(u)
}

// pause has nobody who follows hear anything, or ends that.
func (s *store) pause(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		s.paused = make(chan struct{})
	} else {
		close(s.paused)
		s.paused = nil
	}
}

func (s *store) readsSoFar() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

func (s *store) openNow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

func (s *store) Info(_ context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	info, ok := s.infos[part]
	if !ok {
		return nil, narstore.ErrNotFound
	}
	return info, nil
}

func (s *store) Open(ctx context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	nar, ok := s.nars[info.Path.HashPart()]
	if !ok {
		return nil, narstore.ErrNotFound
	}
	s.open++
	return &memoryNAR{Reader: bytes.NewReader(nar), store: s}, nil
}

func (s *store) Follow(ctx context.Context, f func(narstore.Update) error) error {
	for at := 0; ; {
		s.mu.Lock()
		paused := s.paused
		s.mu.Unlock()
		if paused != nil {
			select {
			case <-paused:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s.mu.Lock()
		updates, changed := slices.Clone(s.updates[at:]), s.changed
		at += len(updates)
		if !s.listing {
			updates = append(updates, narstore.Update{Settled: true})
		}
		s.mu.Unlock()
		for _, u := range updates {
			if err := f(u); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

type memoryNAR struct {
	*bytes.Reader
	store *store
}

func (n *memoryNAR) ReadAt(p []byte, off int64) (int, error) {
	n.store.mu.Lock()
	damaged, failure := n.store.damaged, n.store.failure
	n.store.mu.Unlock()
	if end := off + int64(len(p)); damaged > 0 && end > damaged {
		if failure != nil {
			return 0, failure
		}
		return 0, fmt.Errorf("%w: nothing at %d", narstore.ErrChanged, damaged)
	}
	return n.Reader.ReadAt(p, off)
}

// Written is when files were last written to.
func (n *memoryNAR) Written() time.Time {
	n.store.mu.Lock()
	defer n.store.mu.Unlock()
	return n.store.written
}

func (n *memoryNAR) Close() error {
	n.store.mu.Lock()
	defer n.store.mu.Unlock()
	n.store.open--
	return nil
}

// keeper keeps manifests in memory.
type keeper struct {
	mu   sync.Mutex
	kept map[nix.NARHash][]byte
}

func (k *keeper) Root(h nix.NARHash) (chunk.Root, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	encoded, ok := k.kept[h]
	return sha256.Sum256(encoded), ok
}

func (k *keeper) Stream(ctx context.Context, h nix.NARHash, nar narstore.NAR, emit func([]byte) error) (chunk.Root, error) {
	k.mu.Lock()
	encoded, ok := k.kept[h]
	k.mu.Unlock()
	if ok {
		return sha256.Sum256(encoded), emit(encoded)
	}
	m, err := chunk.Build(ctx, io.NewSectionReader(nar, 0, nar.Size()), h, nar.Size(), emit)
	if err != nil {
		return chunk.Root{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept[h] = m.Encode()
	return m.Root(), nil
}

// bucket is a persistent set of keys that forgets everything with the test.
type bucket struct {
	mu     sync.Mutex
	values map[string]string
	err    error // what Put, Delete and Each return
}

func (b *bucket) Put(key, value []byte, ttl time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ttl != 0 {
		panic("marks are for ever")
	}
	if b.err == nil {
		b.values[string(key)] = string(value)
	}
	return b.err
}

func (b *bucket) Delete(key []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		delete(b.values, string(key))
	}
	return b.err
}

func (b *bucket) Each(_ context.Context, f func(key, value []byte) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, value := range b.values {
		if err := f([]byte(key), []byte(value)); err != nil {
			return err
		}
	}
	return b.err
}
