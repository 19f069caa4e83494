package exchange_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
)

// stuckShelf has NARs that are never read to the end, as on a dead network
// file system.
type stuckShelf struct {
	exchangetest.Shelf
	reading, release chan struct{}
}

func (s *stuckShelf) Open(ctx context.Context, hash nix.NARHash) (narstore.NAR, error) {
	nar, err := s.Shelf.Open(ctx, hash)
	return stuckNAR{nar, s}, err
}

type stuckNAR struct {
	narstore.NAR
	shelf *stuckShelf
}

func (n stuckNAR) ReadAt(p []byte, off int64) (int, error) {
	close(n.shelf.reading)
	<-n.shelf.release
	return n.NAR.ReadAt(p, off)
}

// TestDrainIsBounded stops a server that waits for its disk.
func TestDrainIsBounded(t *testing.T) {
	shelf := &stuckShelf{reading: make(chan struct{}), release: make(chan struct{})}
	nar := exchangetest.Bytes(1, 1000)
	hash := shelf.Add(nar)
	p := newPair(t, shelf, exchange.ServerConfig{DrainTimeout: 50 * time.Millisecond})
	s := p.open(t, hash, false)
	if err := s.Ask([]chunk.Chunk{{Length: len(nar), Sum: chunk.Sum(hash)}}); err != nil {
		t.Fatal(err)
	}
	<-shelf.reading
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.stop()
	}()
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Error("the server waits for the disk for ever")
	}
	close(shelf.release)
	<-stopped
}

// shiftyShelf holds its NARs until they are withdrawn.
type shiftyShelf struct {
	exchangetest.Shelf
	withdrawn atomic.Bool
}

func (s *shiftyShelf) Held(hash nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	if s.withdrawn.Load() {
		return chunk.Root{}, false, false
	}
	return s.Shelf.Held(hash)
}

// TestWithdrawn takes a NAR away from a session that has it open.
func TestWithdrawn(t *testing.T) {
	shelf := &shiftyShelf{}
	nar := exchangetest.Bytes(1, 1000)
	hash := shelf.Add(nar)
	p := newPair(t, shelf, exchange.ServerConfig{})
	s := p.open(t, hash, false)
	fetch(t, s, hash, len(nar))
	shelf.withdrawn.Store(true)
	c := chunk.Chunk{Length: len(nar), Sum: chunk.Sum(hash)}
	_ = s.Ask([]chunk.Chunk{c})
	if err := s.Receive(&c, make([]byte, c.Length)); !errors.Is(err, exchange.ErrNotHeld) {
		t.Errorf("Receive() of a NAR withdrawn = %v, want ErrNotHeld", err)
	}
}

// TestSilentClients has clients that take a place and never say what for. The
// server is soon rid of them, whatever patience it has with sessions.
func TestSilentClients(t *testing.T) {
	for _, id := range exchange.Protocols("") {
		t.Run(string(id), func(t *testing.T) {
			p := newPair(t, &exchangetest.Shelf{}, exchange.ServerConfig{
				RequestTimeout: 50 * time.Millisecond, IdleTimeout: time.Hour, DrainTimeout: time.Hour,
			})
			st, err := p.from.NewStream(t.Context(), p.to, id)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Reset()
			// Part of a request, so that the server hears of the stream.
			if _, err := st.Write([]byte{40}); err != nil {
				t.Fatal(err)
			}
			if _, err := st.Read(make([]byte, 1)); err == nil {
				t.Error("read something, want the end")
			}
		})
	}
}
