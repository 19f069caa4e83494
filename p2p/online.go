package p2p

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// interfaceInterval is how often the interfaces of this machine are looked at,
// which takes some 70 microseconds. libp2p notices another address only
// after up to a minute, as it remembers them for as long.
const interfaceInterval = 3 * time.Second

// watchInterfaces notifies online when a network may have come: when an interface
// of this machine has come up, or has got another address.
func (l *live) watchInterfaces(ctx context.Context) error {
	tick := time.NewTicker(interfaceInterval)
	defer tick.Stop()
	before := connectivity()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := connectivity()
		for _, sign := range now {
			if !slices.Contains(before, sign) {
				l.log.Debug("a network may have come", zap.String("sign", sign))
				l.online.notify()
				break
			}
		}
		before = now
	}
}

// connectivity lists the interfaces that are up, and the addresses that lead
// somewhere. Of what cannot be told it is silent: the next look may tell.
func connectivity() []string {
	var signs []string
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		if i.Flags&net.FlagRunning != 0 && i.Flags&net.FlagLoopback == 0 {
			signs = append(signs, i.Name)
		}
	}
	addrs, _ := net.InterfaceAddrs()
	for _, addr := range addrs {
		if n, ok := addr.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			signs = append(signs, n.String())
		}
	}
	return signs
}

// signal tells any number of goroutines that something has happened. Its zero
// value is ready.
type signal struct {
	mu sync.Mutex
	c  chan struct{}
}

// wait returns a channel that is closed at the next notify.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

func (s *signal) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}
