package dircache

import (
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// maxFills bounds the decompressions at one time.
const maxFills = 2

// scratch holds decompressed NARs in files without names. A NAR nobody reads
// is kept until its room is needed.
type scratch struct {
	dir   string
	limit int64         // of the sum of all NARs, in bytes
	slots chan struct{} // one for each decompression under way

	mu      sync.Mutex
	entries map[nix.NARHash]*entry
	idle    list.List // of *entry that nobody reads, the latest first
	used    int64     // bytes of all entries, and of those still being given up
	closed  bool
}

// entry is one NAR. What is below ready is set before ready is closed.
type entry struct {
	hash   nix.NARHash
	size   int64
	cancel context.CancelFunc // of the filling

	users int           // under scratch.mu
	at    *list.Element // in scratch.idle, under scratch.mu

	ready chan struct{}
	file  *os.File
	err   error
}

func newScratch(dir string, limit int64) *scratch {
	return &scratch{dir: dir, limit: limit, slots: make(chan struct{}, maxFills), entries: make(map[nix.NARHash]*entry)}
}

// source opens the content of a NAR.
type source func() (io.ReadCloser, error)

// open returns the NAR of that hash and size, reading it from src unless it is
// there or on its way already.
func (s *scratch) open(ctx context.Context, hash nix.NARHash, size int64, src source) (*view, error) {
	e, err := s.acquire(hash, size, src)
	if err != nil {
		return nil, err
	}
	select {
	case <-e.ready:
		err = e.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		s.release(e)
		return nil, err
	}
	return &view{scratch: s, entry: e}, nil
}

// acquire counts a user of an entry, which it starts to fill if it is new.
func (s *scratch) acquire(hash nix.NARHash, size int64, src source) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, os.ErrClosed
	}
	if e := s.entries[hash]; e != nil && e.size == size {
		if e.users++; e.at != nil {
			s.idle.Remove(e.at)
			e.at = nil
		}
		return e, nil
	}
	for s.used > s.limit-size && s.idle.Len() > 0 { // no sum: a size can be anything
		s.evict(s.idle.Back())
	}
	if s.used > s.limit-size {
		return nil, fmt.Errorf("no scratch space: %d bytes are needed, and %d of %d are in use", size, s.used, s.limit)
	}
	// The filling serves all who wait for it, so it lasts as long as anybody does.
	ctx, cancel := context.WithCancel(context.Background())
	e := &entry{hash: hash, size: size, cancel: cancel, users: 1, ready: make(chan struct{})}
	s.entries[hash] = e
	s.used += size
	go s.fill(ctx, e, src)
	return e, nil
}

// evict gives up an idle entry. s.mu is held.
func (s *scratch) evict(at *list.Element) {
	e, _ := s.idle.Remove(at).(*entry)
	e.at = nil
	s.drop(e)
	s.used -= e.size
	_ = e.file.Close() // read only from here on: nothing can be lost
}

// drop takes an entry out of the map, unless another has its place. s.mu is
// held.
func (s *scratch) drop(e *entry) {
	if s.entries[e.hash] == e {
		delete(s.entries, e.hash)
	}
}

// release ends one use of an entry.
func (s *scratch) release(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.users--; e.users > 0 {
		return
	}
	select {
	case <-e.ready:
	default:
		// Nobody waits any more. fill gives the space back.
		s.drop(e)
		e.cancel()
		return
	}
	if e.err != nil {
		return // fill has cleaned up
	}
	e.at = s.idle.PushFront(e)
	if s.closed || s.entries[e.hash] != e {
		s.evict(e.at)
	}
}

// close gives up what nobody reads; the rest goes when its readers do.
func (s *scratch) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for s.idle.Len() > 0 {
		s.evict(s.idle.Back())
	}
	for _, e := range s.entries {
		e.cancel()
	}
}

// fill makes an entry ready.
func (s *scratch) fill(ctx context.Context, e *entry, src source) {
	defer e.cancel()
	var file *os.File
	var err error
	select {
	case s.slots <- struct{}{}:
		file, err = s.write(ctx, e, src)
		<-s.slots
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && e.users == 0 { // given up at the last moment
		err = errors.Join(context.Canceled, file.Close())
	}
	e.file, e.err = file, err
	if err != nil {
		s.drop(e)
		s.used -= e.size
	}
	close(e.ready)
}

// write puts the NAR into a file without a name, and checks it on the way.
func (s *scratch) write(ctx context.Context, e *entry, src source) (*os.File, error) {
	content, err := src()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	file, err := os.CreateTemp(s.dir, "nar-p2p-*.nar")
	if err != nil {
		return nil, err
	}
	// Without a name nothing can be left behind.
	err = os.Remove(file.Name())
	if err == nil {
		err = copyNAR(ctx, file, content, e)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// copyNAR copies content, which must be the NAR that e says.
func copyNAR(ctx context.Context, dst io.Writer, content io.Reader, e *entry) error {
	sum := sha256.New()
	buf := make([]byte, 128<<10)
	cancellable := readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return content.Read(p)
	})
	// One byte more than announced is enough to see that there are more.
	n, err := io.CopyBuffer(io.MultiWriter(dst, sum), io.LimitReader(cancellable, e.size+1), buf)
	switch {
	case err != nil:
		return err
	case n != e.size:
		return fmt.Errorf("%w: its length is not the %d bytes of the record", errDamaged, e.size)
	case nix.NARHash(sum.Sum(nil)) != e.hash:
		return fmt.Errorf("%w: its hash is not the %s of the record", errDamaged, e.hash)
	}
	return nil
}

// readerFunc is an io.Reader.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// view is one user's NAR.
type view struct {
	scratch *scratch
	entry   *entry
	once    sync.Once
}

func (v *view) ReadAt(p []byte, off int64) (int, error) { return v.entry.file.ReadAt(p, off) }

func (v *view) Size() int64 { return v.entry.size }

func (v *view) Close() error {
	v.once.Do(func() { v.scratch.release(v.entry) })
	return nil
}
