// Package lan finds peers on the local network by multicast DNS, in the form of
// libp2p's mDNS discovery (https://github.com/libp2p/specs/blob/master/discovery/mdns.md):
// a service instance of a random name, whose TXT records are addresses that end
// in the peer's ID.
//
// It differs from the implementation in go-libp2p where that falls short on
// machines that move. What it announces are the addresses of this moment, not
// those of up to a minute ago; it begins anew as soon as an interface changes; it
// needs only one of IPv4 and IPv6; and a peer is found again every few minutes
// as long as it announces itself.
package lan

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/zeroconf/v2"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	domain = "local"
	// port must be given, and nobody looks at it: the TXT records count.
	port      = 4001
	txtPrefix = "dnsaddr="
	// ttl is how long others remember an announcement, in seconds. When it has
	// passed they find the peer once more.
	ttl = 120
	// maxAddrs and maxText bound what is announced, the text in bytes: all of it
	// must fit into one packet of 1,500 bytes.
	maxAddrs = 16
	maxText  = 1_000
	// settleTime is how long interfaces must have been left alone before a change
	// counts: addresses come one by one.
	settleTime = 200 * time.Millisecond
	// retryInterval is how often it is tried again where mDNS cannot be had.
	retryInterval = time.Minute
	// maxEntries bounds the announcements that are taken until all is begun anew.
	// An office has hundreds of them in a day.
	maxEntries = 10_000
)

// Config says who looks for whom.
type Config struct {
	// Service is the name under which peers find each other, as in
	// "_nar-p2p._udp".
	Service string
	// Peer is this peer's ID.
	Peer peer.ID
	// On reports whether an interface is to be used; nil: all are.
	On func(*net.Interface) bool
	// Addrs returns the addresses to be announced, those of now. Where there are
	// none the peer only looks for others.
	Addrs func() []ma.Multiaddr
	// Changed is called when interfaces have changed.
	Changed func()
	// Found takes a peer that was found, which anybody on the network can make
	// up. It must not block.
	Found func(peer.AddrInfo)
}

// Run announces the peer and looks for others until ctx ends.
func Run(ctx context.Context, cfg Config, log *zap.Logger) error {
	log = log.Named("lan")
	changes := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watch(ctx, changes, log) })
	g.Go(func() error {
		for ctx.Err() == nil {
			state := interfaces(cfg.On)
			session, cancel := context.WithCancel(ctx)
			var failure error
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				failure = cfg.session(session, state.multicast)
			}()
			if changed := state.awaitChange(ctx, changes, ended); !changed && ctx.Err() == nil {
				log.Info("no mDNS", zap.Error(failure), zap.Duration("retry", retryInterval))
				state.awaitChange(ctx, changes, nil)
			}
			cancel()
			<-ended
			cfg.Changed()
		}
		return ctx.Err()
	})
	return g.Wait()
}

// state is the interfaces as they are.
type state struct {
	multicast []net.Interface
	// text tells all that matters of them and of all others' addresses.
	text string
}

func interfaces(on func(*net.Interface) bool) state {
	all, err := net.Interfaces()
	if err != nil {
		return state{}
	}
	var s state
	var text strings.Builder
	for _, i := range all {
		const needed = net.FlagUp | net.FlagRunning
		if i.Flags&needed != needed || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, _ := i.Addrs() // One that has gone meanwhile has none.
		fmt.Fprintln(&text, i.Index, i.Name, i.Flags, addrs)
		if i.Flags&net.FlagMulticast != 0 && len(addrs) > 0 && (on == nil || on(&i)) {
			s.multicast = append(s.multicast, i)
		}
	}
	s.text = text.String()
	return s
}

// awaitChange waits until the interfaces have changed and settled, and reports
// whether that came before the end of what is under way or of ctx. Where nothing
// is under way it waits for retryInterval at most.
func (s state) awaitChange(ctx context.Context, changes, ended <-chan struct{}) bool {
	var retry <-chan time.Time
	if ended == nil {
		retry = time.After(retryInterval)
	}
	settled := time.NewTimer(settleTime)
	settled.Stop()
	defer settled.Stop()
	for {
		select {
		case <-changes:
			settled.Reset(settleTime)
		case <-settled.C:
			if interfaces(nil).text != s.text {
				return true
			}
		case <-ended:
			return false
		case <-retry:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// session announces and looks on these interfaces until ctx ends.
func (c *Config) session(ctx context.Context, on []net.Interface) error {
	if len(on) == 0 {
		return errors.New("no interface for multicast has an address")
	}
	stop, err := c.announce(on)
	if err != nil {
		return err
	}
	defer stop()
	return c.browse(ctx, on)
}

// announce answers those who look, until stop is called.
func (c *Config) announce(on []net.Interface) (stop func(), err error) {
	ips, texts := c.announcement()
	if len(texts) == 0 {
		return func() {}, nil
	}
	name := strings.ToLower(rand.Text() + rand.Text())
	server, err := zeroconf.RegisterProxy(name, c.Service, domain, port, name, ips, texts, on, zeroconf.TTL(ttl))
	if err != nil {
		return nil, fmt.Errorf("announce: %w", err)
	}
	return server.Shutdown, nil
}

// announcement returns the TXT records, and an address of each IP version
// because the protocol wants one.
func (c *Config) announcement() (ips, texts []string) {
	var ip4, ip6 string
	length := 0
	for _, addr := range c.Addrs() {
		text := txtPrefix + addr.String() + "/p2p/" + c.Peer.String()
		if len(texts) == maxAddrs || length+len(text) > maxText || len(text) > 255 {
			continue
		}
		length += len(text)
		texts = append(texts, text)
		switch first := addr[0]; first.Protocol().Code {
		case ma.P_IP4:
			ip4 = cmp.Or(ip4, first.Value())
		case ma.P_IP6:
			ip6 = cmp.Or(ip6, first.Value())
		}
	}
	return slices.DeleteFunc([]string{ip4, ip6}, func(ip string) bool { return ip == "" }), texts
}

// browse looks for others until ctx ends. Where only one of IPv4 and IPv6 can be
// had the library gives up on both, so each is tried.
func (c *Config) browse(ctx context.Context, on []net.Interface) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var errs []error
	for _, version := range []zeroconf.IPType{zeroconf.IPv4AndIPv6, zeroconf.IPv4, zeroconf.IPv6} {
		entries, ended := make(chan *zeroconf.ServiceEntry), make(chan struct{})
		go func() {
			defer close(ended)
			errs = append(errs, zeroconf.Browse(ctx, c.Service, domain, entries, zeroconf.SelectIfaces(on), zeroconf.SelectIPTraffic(version)))
		}()
		c.read(entries, ended, cancel)
		<-ended
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return fmt.Errorf("browse: %w", errors.Join(errs...))
}

var errFlood = errors.New("too many peers on the local network")

// read tells of the peers that entries announce until the library has closed
// them, or has failed before it got so far. It keeps in mind each that it has
// told of, so with too many of them the browsing is cancelled.
func (c *Config) read(entries <-chan *zeroconf.ServiceEntry, ended <-chan struct{}, cancel context.CancelCauseFunc) {
	for n := 0; ; n++ {
		select {
		case entry, ok := <-entries:
			if !ok {
				return
			}
			if n == maxEntries {
				cancel(errFlood)
			}
			for _, info := range parse(entry.Text) {
				if info.ID != c.Peer {
					c.Found(info)
				}
			}
		case <-ended:
			return
		}
	}
}

// parse returns the peers that TXT records name. Whatever else stands there is
// passed over.
func parse(texts []string) []peer.AddrInfo {
	var addrs []ma.Multiaddr
	for _, text := range texts {
		rest, ok := strings.CutPrefix(text, txtPrefix)
		if !ok || len(addrs) == maxAddrs {
			continue
		}
		addr, err := ma.NewMultiaddr(rest)
		if err != nil {
			continue
		}
		if _, id := peer.SplitAddr(addr); id != "" {
			addrs = append(addrs, addr)
		}
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return nil
	}
	return infos
}
