package routing

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/p2p/work"
)

// talker is a stream on which there is always more.
type talker struct{ network.Stream }

func (talker) Read(p []byte) (int, error) {
	clear(p) // empty messages
	return len(p), nil
}

// A peer that sends messages of the DHT without end has so many looked at in a
// second, however many streams it has; another one is not held up.
func TestMessagesOfTheDHTAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const second = dhtWork / 100
		limit := work.New(second)
		stream := func(p peer.ID) *pacedStream {
			return &pacedStream{Stream: talker{}, limit: limit, who: work.Who{Peer: p}}
		}
		const streams, span = 16, time.Minute
		read := make([]int, streams)
		begin := time.Now()
		done := make(chan struct{})
		for i := range streams {
			go func() {
				for s := stream("loud"); time.Since(begin) < span; read[i]++ {
					_, _ = s.Read(make([]byte, 300)) // which never fails
				}
				done <- struct{}{}
			}()
		}
		synctest.Wait()
		quiet := time.Now()
		_, _ = stream("quiet").Read(make([]byte, 300))
		if waited := time.Since(quiet); waited > 0 {
			t.Errorf("another peer was held up for %v", waited)
		}
		total := 0
		for range streams {
			<-done
		}
		for _, n := range read {
			total += n
		}
		// A neighbour has 2 s of work for each second, and 20 s saved up.
		most := int((20 + span.Seconds()) * 2 * second.Seconds() / (workOfMessage + 300*workOfByte).Seconds())
		// Who has waited for long enough gets one in any case.
		most += streams * int(span/maxPause+1)
		if total > most || total < most/2 {
			t.Errorf("%d messages in %v, want at most %d", total, span, most)
		}
	})
}
