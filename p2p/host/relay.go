package host

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// maxRelayCandidates bounds how many candidates AutoRelay gets at once.
const maxRelayCandidates = 32

// A relay is one of few that are known, or of many that peers of the DHT may be.
// In either case candidates are asked for every relayInterval while there are too
// few, and one that refused, or could not be reached, is asked again after
// relayBackoff; libp2p's own hour is for strangers that have no room.
const (
	relayInterval = 5 * time.Second
	relayBackoff  = 20 * time.Second
	// relayLook is how often it is looked whether there are candidates now.
	relayLook = 200 * time.Millisecond
	// Among strangers enoughCandidates are a choice, and after relayPatience those
	// that there are will do.
	enoughCandidates = 3
	relayPatience    = 10 * time.Second
	strangerBackoff  = 10 * time.Minute
)

// DataRelay are the limits of a relay that carries NARs too.
type DataRelay struct {
	// Rate is how many bytes a second it relays, in all and in both directions
	// together; 0 sets no limit.
	Rate int64
	// Volume is how many bytes it relays over one connection, in each direction.
	Volume int64
}

const (
	// dataRelayTime is how long a connection that may carry NARs lasts.
	dataRelayTime = time.Hour
	// dataRelayBuffer is what is relayed at a time, in bytes.
	dataRelayBuffer = 32 << 10
)

// MinRelayVolume is what a relay must let through for NARs to be sent over it, in
// bytes: others, which have not asked for this, let far less through.
const MinRelayVolume = 16 << 20

// relayResources are a relay's limits. Reservations are for whole offices
// behind one address; what goes through is for hole punching and small
// requests, so data and time keep libp2p's low limits (128 KiB, 2 minutes), unless
// it is to carry data.
func relayResources(data *DataRelay) relay.Resources {
	r := relay.DefaultResources()
	r.MaxReservations = 1_024
	r.MaxReservationsPerIP = 256
	r.MaxReservationsPerASN = 1_024
	// A member that is asked for something by a whole office has as many.
	r.MaxCircuits = 128
	if data != nil {
		r.Limit = &relay.RelayLimit{Duration: dataRelayTime, Data: data.Volume}
		r.BufferSize = dataRelayBuffer
	}
	return r
}

// RelayMeter counts what a relay does. Its zero value is ready.
type RelayMeter struct{ reservations, connections, bytes atomic.Int64 }

// RelayStats say what a relay does and has done.
type RelayStats struct {
	// Reservations and Connections are those that there are.
	Reservations, Connections int64
	// Bytes were relayed since the start, in both directions together.
	Bytes int64
}

// Stats returns what was counted.
func (m *RelayMeter) Stats() RelayStats {
	return RelayStats{Reservations: m.reservations.Load(), Connections: m.connections.Load(), Bytes: m.bytes.Load()}
}

// relayTracer hears what a relay does. It is also what slows one down: libp2p calls
// it where it copies, with each piece that it has copied.
type relayTracer struct {
	relay.MetricsTracer

	meter *RelayMeter
	// limit is nil where there is none.
	limit *rate.Limiter
}

func newRelayTracer(cfg *Config) relay.MetricsTracer {
	registerer := cfg.Registerer
	if registerer == nil {
		registerer = prometheus.NewRegistry()
	}
	t := &relayTracer{MetricsTracer: relay.NewMetricsTracer(relay.WithRegisterer(registerer)), meter: cfg.RelayMeter}
	if t.meter == nil {
		t.meter = new(RelayMeter)
	}
	if cfg.DataRelay != nil && cfg.DataRelay.Rate > 0 {
		t.limit = rate.NewLimiter(rate.Limit(cfg.DataRelay.Rate), dataRelayBuffer)
	}
	return t
}

// BytesTransferred counts bytes that were relayed, and waits where that was too
// fast.
func (t *relayTracer) BytesTransferred(n int) {
	t.meter.bytes.Add(int64(n))
	t.MetricsTracer.BytesTransferred(n)
	if t.limit != nil {
		time.Sleep(t.limit.ReserveN(time.Now(), n).Delay())
	}
}

func (t *relayTracer) ConnectionOpened() {
	t.meter.connections.Add(1)
	t.MetricsTracer.ConnectionOpened()
}

func (t *relayTracer) ConnectionClosed(d time.Duration) {
	t.meter.connections.Add(-1)
	t.MetricsTracer.ConnectionClosed(d)
}

func (t *relayTracer) ReservationAllowed(renewal bool) {
	if !renewal {
		t.meter.reservations.Add(1)
	}
	t.MetricsTracer.ReservationAllowed(renewal)
}

func (t *relayTracer) ReservationClosed(n int) {
	t.meter.reservations.Add(-int64(n))
	t.MetricsTracer.ReservationClosed(n)
}

// knownRelays are options for the few relays of a private network.
func knownRelays() []autorelay.Option {
	return []autorelay.Option{
		autorelay.WithBootDelay(0), autorelay.WithMinInterval(relayInterval), autorelay.WithBackoff(relayBackoff),
	}
}

// strangeRelays are options for those that peers of the DHT may be.
func strangeRelays() []autorelay.Option {
	return []autorelay.Option{
		autorelay.WithBootDelay(relayPatience), autorelay.WithMinInterval(relayInterval),
		autorelay.WithMinCandidates(enoughCandidates), autorelay.WithBackoff(strangerBackoff),
	}
}

// relayCandidates adapts a function that knows peers to AutoRelay, which would come
// back only after relayInterval for more: so long it is waited until it knows some.
func relayCandidates(source func(num int) []peer.AddrInfo) autorelay.PeerSource {
	return func(ctx context.Context, num int) <-chan peer.AddrInfo {
		num = min(num, maxRelayCandidates)
		found := make(chan peer.AddrInfo, num)
		go func() {
			defer close(found)
			for _, info := range awaitPeers(ctx, source, num) {
				found <- info
			}
		}()
		return found
	}
}

// awaitPeers returns up to num peers once the source knows enough of them, or those
// that it knows after relayInterval.
func awaitPeers(ctx context.Context, source func(num int) []peer.AddrInfo, num int) []peer.AddrInfo {
	ctx, cancel := context.WithTimeout(ctx, relayInterval)
	defer cancel()
	tick := time.NewTicker(relayLook)
	defer tick.Stop()
	for {
		infos := source(num)
		infos = infos[:min(len(infos), num)]
		if len(infos) > enoughCandidates {
			return infos
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return infos
		}
	}
}
