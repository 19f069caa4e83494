package swarm_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// link is a line to a host on loopback, with the rate and the delay of a real
// one.
type link struct {
	// rate is in bytes a second, of all connections together, from the host on;
	// rtt the round trip.
	rate float64
	rtt  time.Duration
	// ip is where the line is reached, 127.0.0.1 where it is "".
	ip string

	// cut makes the line stand still while it is set.
	cut atomic.Bool
	// carried counts the bytes from the host on.
	carried atomic.Int64

	mu   sync.Mutex
	free time.Time // when the line has carried what was given to it
}

// to lays the line to a host, and returns where that is reached through it.
func (l *link) to(tb testing.TB, h host.Host) peer.AddrInfo {
	tb.Helper()
	target, err := manet.ToNetAddr(h.Addrs()[0])
	if err != nil {
		tb.Fatal(err)
	}
	ip := l.ip
	if ip == "" {
		ip = "127.0.0.1"
	}
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		tb.Fatal(err)
	}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { l.join(ctx, near, target.String()) })
		}
	})
	tb.Cleanup(func() {
		cancel()
		listener.Close()
		running.Wait()
	})
	addr, err := manet.FromNetAddr(listener.Addr())
	if err != nil {
		tb.Fatal(err)
	}
	return peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{addr}}
}

func (l *link) join(ctx context.Context, near net.Conn, target string) {
	defer near.Close()
	far, err := new(net.Dialer).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { near.Close(); far.Close() })()
	var directions sync.WaitGroup
	directions.Go(func() { l.carry(far, near, func(int) time.Time { return time.Now() }) })
	directions.Go(func() { l.carry(near, far, l.departure) })
	directions.Wait()
}

// departure is when the line has carried n bytes more.
func (l *link) departure(n int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.carried.Add(int64(n))
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return l.free
}

// carry copies from one connection to the other until either ends. What is on
// its way is bounded by what the line holds, and a queue of 256 KiB before it.
func (l *link) carry(to, from net.Conn, departure func(int) time.Time) {
	const size = 16 << 10
	type piece struct {
		bytes []byte
		due   time.Time
	}
	holds := int(l.rate*l.rtt.Seconds())/size + 16
	pieces := make(chan piece, holds)
	var sender sync.WaitGroup
	sender.Go(func() {
		defer to.Close()
		for p := range pieces {
			time.Sleep(time.Until(p.due))
			for l.cut.Load() {
				time.Sleep(time.Millisecond)
			}
			if _, err := to.Write(p.bytes); err != nil {
				from.Close()
				for range pieces {
					continue
				}
				return
			}
		}
	})
	for {
		b := make([]byte, size)
		n, err := io.ReadAtLeast(from, b, 1)
		if err != nil {
			break
		}
		left := departure(n)
		// The queue before the line is short: who gives more waits.
		if ahead := time.Until(left) - time.Duration(256<<10/l.rate*float64(time.Second)); ahead > 0 {
			time.Sleep(ahead)
		}
		pieces <- piece{b[:n], left.Add(l.rtt / 2)}
	}
	close(pieces)
	sender.Wait()
}
