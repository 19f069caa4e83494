package p2p

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/internal/throttle"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
)

const (
	// benchAhead is how much is asked for ahead of what has come, in bytes: what a line
	// of 1 Gbit/s holds at 60 ms.
	benchAhead = 8 << 20
	// benchRun is how much is asked for with one request, in bytes.
	benchRun = 1 << 20
	// maxBenchQuestions bounds the NARs that the peer is asked about.
	maxBenchQuestions = 3 * exchange.MaxHashes
	// maxBenchNAR bounds the NAR that is chosen, in bytes: its whole manifest has to
	// come first.
	maxBenchNAR = 4 << 30
	// benchPings is of how many round trips the shortest counts.
	benchPings = 3
)

var (
	// ErrNothingInCommon says that the peer has none of the NARs to measure with.
	ErrNothingInCommon = errors.New("the peer holds none of the NARs to measure with, or does not share them")
	// ErrMeasuring says that only one peer is measured at a time.
	ErrMeasuring = errors.New("another measurement is under way")
)

// Measurement says how a peer is to be measured.
type Measurement struct {
	// NARs are those that it may be asked for, the best first. Only what it may hear
	// of belongs there.
	NARs []MeasuredNAR
	// Bytes and Time bound what is fetched; whichever comes first.
	Bytes int64
	Time  time.Duration
	// Line is what it comes over, nil for no limit.
	Line *throttle.Line
}

// MeasuredNAR is a NAR to measure with.
type MeasuredNAR struct {
	Hash nix.NARHash
	Size int64
}

// Measured is what came of a measurement.
type Measured struct {
	NAR MeasuredNAR
	// Path is the way that the bytes took, LAN whether that is the local network.
	Path exchange.Path
	LAN  bool
	// RTT is the shortest of a few round trips; FirstByte the time from the request
	// to the first chunk, and Took that to the last.
	RTT, FirstByte, Took time.Duration
	Bytes                int64
}

// Bench fetches a part of a NAR from one peer, checks it and throws it away. It does
// as any fetch does: the peer's limits bound it, and it may be told that there is no
// room. What the peer has a manifest of at hand is preferred, which costs it less.
func (n *Node) Bench(ctx context.Context, p peer.ID, m Measurement) (*Measured, error) {
	l, err := n.partner(p)
	if err != nil {
		return nil, err
	}
	if !n.measuring.TryLock() {
		return nil, ErrMeasuring
	}
	defer n.measuring.Unlock()
	told := &Measured{}
	if told.RTT, err = l.roundTrip(ctx, p, benchPings); err != nil {
		return nil, err
	}
	if told.NAR, err = l.common(ctx, p, m); err != nil {
		return nil, err
	}
	s, err := l.client.OpenNAR(ctx, p, told.NAR.Hash, false)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	told.Path, told.LAN = s.Path(), l.isLAN(s.RemoteAddr())
	chunks, err := chunksOf(s, told.NAR)
	if err != nil {
		return nil, err
	}
	return told, told.fetch(ctx, s, chunks, m)
}

// common asks a peer which of the NARs it holds, and chooses one: the smallest that
// is large enough, of those whose manifest the peer knows if there are any.
func (l *live) common(ctx context.Context, p peer.ID, m Measurement) (best MeasuredNAR, err error) {
	candidates := slices.DeleteFunc(slices.Clone(m.NARs), func(n MeasuredNAR) bool { return n.Size <= chunk.ImplicitSize || n.Size > maxBenchNAR })
	candidates = candidates[:min(len(candidates), maxBenchQuestions)]
	known := false
	better := func(n MeasuredNAR, rootKnown bool) bool {
		switch {
		case best.Size == 0 || rootKnown != known:
			return best.Size == 0 || rootKnown
		case best.Size < m.Bytes:
			return n.Size > best.Size
		default:
			return n.Size >= m.Bytes && n.Size < best.Size
		}
	}
	for batch := range slices.Chunk(candidates, exchange.MaxHashes) {
		hashes := make([]nix.NARHash, len(batch))
		for i, n := range batch {
			hashes[i] = n.Hash
		}
		holdings, err := l.client.Have(ctx, p, hashes)
		if err != nil {
			return best, err
		}
		for i, h := range holdings {
			if h.Held && better(batch[i], h.RootKnown) {
				best, known = batch[i], h.RootKnown
			}
		}
		if best.Size > 0 {
			return best, nil
		}
	}
	return best, ErrNothingInCommon
}

// chunksOf returns the chunks of a NAR, as the peer says.
func chunksOf(s *exchange.Session, nar MeasuredNAR) ([]chunk.Chunk, error) {
	if err := s.AskManifest(); err != nil {
		return nil, err
	}
	var encoded bytes.Buffer
	if _, err := s.ReceiveManifest(nar.Size, func(piece []byte) error { encoded.Write(piece); return nil }); err != nil {
		return nil, err
	}
	m, err := chunk.Decode(encoded.Bytes(), nar.Hash, nar.Size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrProtocol, err)
	}
	return m.Chunks, nil
}

// fetch fetches chunks until there is enough.
func (t *Measured) fetch(ctx context.Context, s *exchange.Session, chunks []chunk.Chunk, m Measurement) error {
	begun, asked, next := time.Now(), int64(0), 0
	ask := func() error {
		for asked-t.Bytes < benchAhead && asked < m.Bytes && next < len(chunks) && time.Since(begun) < m.Time {
			pay, err := m.Line.Await(ctx)
			if err != nil {
				return err
			}
			run, size := next, int64(0)
			for most := cmp.Or(min(m.Line.Most(), benchRun), benchRun); next < len(chunks) && next-run < exchange.MaxRunChunks && (next == run || size < most); next++ {
				size += int64(chunks[next].Length)
			}
			pay(size)
			asked += size
			if err := s.Ask(chunks[run:next]); err != nil {
				return err
			}
		}
		return nil
	}
	buffer := make([]byte, chunk.MaxLength)
	for got := 0; ; got++ {
		if err := ask(); err != nil {
			return err
		}
		if got == next {
			return nil
		}
		if err := s.Receive(&chunks[got], buffer[:chunks[got].Length]); err != nil {
			return err
		}
		t.Bytes += int64(chunks[got].Length)
		t.Took = time.Since(begun)
		t.FirstByte = cmp.Or(t.FirstByte, t.Took)
	}
}
