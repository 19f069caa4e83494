package exchange_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// countingShelf counts what it is asked.
type countingShelf struct {
	exchangetest.Shelf
	asked atomic.Int64
}

func (s *countingShelf) Held(hash nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	s.asked.Add(1)
	return s.Shelf.Held(hash)
}

func (s *countingShelf) Narinfo(ctx context.Context, part nix.HashPart) (*narinfo.Info, error) {
	s.asked.Add(1)
	return s.Shelf.Narinfo(ctx, part)
}

// little is so little work that it is used up by a few requests, and again how long
// it takes at least until one more can be answered.
const (
	little = 300 * time.Microsecond
	again  = time.Second
)

// TestWorkIsBounded has peers ask by each protocol until they have had enough. What
// comes then is refused before anything is done for it, and neither another stream
// nor another identity helps.
func TestWorkIsBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		most int // requests of one peer
		ask  func(t *testing.T, p *pair, hash nix.NARHash) error
	}{
		"have": {14, func(t *testing.T, p *pair, hash nix.NARHash) error {
			t.Helper()
			_, err := p.client.Have(t.Context(), p.to, []nix.NARHash{hash})
			return err
		}},
		"narinfo": {1, func(t *testing.T, p *pair, _ nix.NARHash) error {
			t.Helper()
			_, err := p.client.Narinfos(t.Context(), p.to, make([]nix.HashPart, 10))
			return err
		}},
		"nar": {0, func(t *testing.T, p *pair, hash nix.NARHash) error {
			t.Helper()
			_, err := tryFetch(p.open(t, hash, false), hash, 20_000)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			shelf := &countingShelf{}
			hash := shelf.Add(exchangetest.Bytes(1, 20_000))
			onFar := &farHost{Host: exchangetest.NewHost(t)}
			p := newPairOn(t, onFar, shelf, exchange.ServerConfig{Work: little})
			// spend asks until there is no more. It counts the answers, and how often the
			// shelf was asked by what was refused.
			spend := func() (answered int, asked int64) {
				q := p.another(t)
				for ; answered < 100; answered++ {
					before := shelf.asked.Load()
					if err := tt.ask(t, q, hash); isBusy(err) {
						return answered, shelf.asked.Load() - before
					} else if err != nil {
						t.Fatal(err)
					}
				}
				t.Fatal("a peer was never told to wait")
				return 0, 0
			}
			begin := time.Now()
			later := func() int { return int(time.Since(begin) / again) }
			// All are of one address group, which has as much as two of them.
			for range 2 {
				if answered, _ := spend(); answered > tt.most+later() {
					t.Errorf("%d requests of one peer were answered, want at most %d", answered, tt.most)
				}
			}
			for range 2 {
				answered, asked := spend()
				if answered > 1+later() {
					t.Errorf("%d requests of another identity were answered", answered)
				}
				if asked > 0 {
					t.Errorf("the shelf was asked %d times for who had nothing left", asked)
				}
			}
		})
	}
}

// TestWorkIsChargedAlike wants the same number of questions answered about what is
// here and about what is not: else a peer could tell one from the other by when it
// is refused.
func TestWorkIsChargedAlike(t *testing.T) {
	info := genuine(t)[0]
	shelf := &countingShelf{}
	shelf.AddNarinfo(info)
	held := shelf.Add(exchangetest.Bytes(1, 20_000))
	have := func(hash nix.NARHash) proto.Message { return &wirepb.HaveRequest{NarHashes: [][]byte{hash[:]}} }
	record := func(part nix.HashPart) proto.Message { return &wirepb.NarinfoRequest{HashParts: [][]byte{part[:]}} }
	for _, tt := range []struct {
		name          string
		protocol      int
		there, absent proto.Message
	}{
		{"have", 0, have(held), have(nix.NARHash{1})},
		{"narinfo", 1, record(info.StorePath.HashPart()), record(nix.HashPart{1})},
		{"nar", 2, request(&wirepb.Open{NarHash: held[:]}), request(&wirepb.Open{NarHash: make([]byte, 32)})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// asks counts what is answered before a peer is told to wait.
			asks := func(message proto.Message) (answered int) {
				p := newPairOn(t, &farHost{Host: exchangetest.NewHost(t)}, shelf, exchange.ServerConfig{Work: little})
				before := p.server.Stats().Refused
				for p.server.Stats().Refused == before {
					st, err := p.from.NewStream(t.Context(), p.to, exchange.Protocols("")[tt.protocol])
					if err != nil {
						t.Fatal(err)
					}
					if _, err := st.Write(exchangetest.Append(nil, message)); err != nil {
						t.Fatal(err)
					}
					if err := st.CloseWrite(); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadAll(st); err != nil && !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
					answered++
				}
				return answered - 1
			}
			begin := time.Now()
			there, absent := asks(tt.there), asks(tt.absent)
			if later := int(time.Since(begin) / again); max(there-absent, absent-there) > later || there == 0 {
				t.Errorf("%d questions about what is here were answered, and %d about what is not", there, absent)
			}
		})
	}
}
