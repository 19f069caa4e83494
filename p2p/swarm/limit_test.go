package swarm_test

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/throttle"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// No more is asked for than the line allows, however many transfers and providers
// there are; and what is asked for comes once.
func TestTransfersKeepToALimit(t *testing.T) {
	const limit, size = 2 << 20, 1 << 20
	shelf := &exchangetest.Shelf{}
	nars := [][]byte{exchangetest.Bytes(1, size), exchangetest.Bytes(2, size)}
	one := provide(t, shelf, exchange.ServerConfig{})
	other := provide(t, shelf, exchange.ServerConfig{})
	l := newLab(t, exchange.ClientConfig{}, one, other)
	limited := throttle.New(limit)
	begin := time.Now()
	var transfers sync.WaitGroup
	for _, nar := range nars {
		hash := shelf.Add(nar)
		settle(t, shelf, hash)
		transfers.Go(func() {
			line := limited.Line()
			tr, err := l.Open(throttle.With(t.Context(), line), swarm.Want{Hash: hash, Size: size})
			if err != nil {
				t.Error(err)
				return
			}
			defer tr.Close()
			if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, nar) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
			if line.Held() == 0 {
				t.Error("nothing was held up")
			}
		})
	}
	transfers.Wait()
	// What the last turn brings need not pass any more, and a little may be made up
	// for.
	if took, least := time.Since(begin), 600*time.Millisecond; took < least {
		t.Errorf("it took %v, want %v at least", took, least)
	}
}
