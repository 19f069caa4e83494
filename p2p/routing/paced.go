package routing

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/sync/semaphore"

	"github.com/nar-p2p/nar-p2p/p2p/work"
)

// What a message of the DHT costs in processor time, about, beside what its length
// adds. The DHT reads the length of one byte by byte, and then the rest.
const (
	workOfMessage = 60 * time.Microsecond
	workOfByte    = 100 * time.Nanosecond
)

// maxPause is the longest pause before a message is looked at: whoever sent it waits
// no longer than a few seconds.
const maxPause = 5 * time.Second

// dhtWork is how much processor time a second peers beyond the local network may have
// from the DHT, see package work.
const dhtWork = time.Second

// Paced returns a host for Join on which streams of others come no faster than they
// may have work done, and with messages of up to maxMessage: who wants more waits, on
// each stream, and who sends a longer one loses the stream.
// What the DHT itself is answered may be longer, within answersMemory.
func Paced(h host.Host) host.Host {
	return paced{h, work.New(dhtWork), semaphore.NewWeighted(answersMemory)}
}

type paced struct {
	host.Host

	limit   *work.Limit
	answers *semaphore.Weighted
}

// NewStream implements host.Host.
func (p paced) NewStream(ctx context.Context, to peer.ID, ids ...protocol.ID) (network.Stream, error) {
	st, err := p.Host.NewStream(ctx, to, ids...)
	if err != nil {
		return nil, err
	}
	return &answerStream{Stream: st, at: frames{most: maxAnswer}, memory: p.answers}, nil
}

// SetStreamHandler implements host.Host.
func (p paced) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	p.Host.SetStreamHandler(id, func(st network.Stream) {
		handle(&pacedStream{
			Stream: st, limit: p.limit, at: frames{most: maxMessage},
			who: work.At(st.Conn().RemotePeer(), st.Conn().RemoteMultiaddr()),
		})
	})
}

type pacedStream struct {
	network.Stream

	limit *work.Limit
	who   work.Who
	// at is where in its messages the stream is.
	at frames
}

// Read reads, and returns when what was read may be looked at.
func (s *pacedStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if _, tooLong := s.at.pass(p[:n]); tooLong != nil {
		_ = s.Reset()
		return 0, tooLong
	}
	if n > 1 {
		cost := workOfMessage + time.Duration(n)*workOfByte
		for waited := time.Duration(0); waited < maxPause; {
			wait := min(s.limit.Charge(s.who, cost), maxPause-waited)
			if wait == 0 {
				break
			}
			time.Sleep(wait)
			waited += wait
		}
	}
	return n, err
}
