package lab

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// speaker is a socket of UDP on a host of a lab.
type speaker struct {
	t *testing.T
	*net.UDPConn
}

func speakerOn(t *testing.T, h *Host, port int) *speaker {
	t.Helper()
	s := &speaker{t: t}
	err := inNamespace(h.ns, func() (err error) {
		s.UDPConn, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (s *speaker) say(to netip.AddrPort) {
	s.t.Helper()
	if _, err := s.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
		s.t.Fatal(err)
	}
}

// hears returns whom it hears of, or the zero value if nobody.
func (s *speaker) hears(patience time.Duration) netip.AddrPort {
	s.t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	_, from, err := s.ReadFromUDPAddrPort(make([]byte, 16))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return netip.AddrPort{}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

const (
	soon = 10 * time.Second
	// never is how long nothing is waited for. That nothing comes later proves
	// nothing, but what would come here comes within a millisecond.
	never = 200 * time.Millisecond
)

func TestNATLetsInAnswersOnly(t *testing.T) {
	for name, kind := range map[string]NATConfig{
		"masquerade":   {},
		"random ports": {RandomPorts: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := New(t)
			internet := l.Internet()
			a, b := speakerOn(t, internet.Host("a"), 1000), speakerOn(t, internet.Host("b"), 1000)
			home := internet.NAT("nat", kind)
			inside := home.Host("inside")
			in := speakerOn(t, inside, 5000)

			in.say(netip.MustParseAddrPort("11.0.0.1:1000"))
			first := a.hears(soon)
			if first.Addr().String() != home.Router.Addr {
				t.Errorf("a host behind a NAT is seen as %v, want an address of %s", first, home.Router.Addr)
			}
			a.say(first)
			if got := in.hears(soon); got.String() != "11.0.0.1:1000" {
				t.Errorf("answer from %v", got)
			}
			// Of another, though the address is right.
			b.say(first)
			if got := in.hears(never); got.IsValid() {
				t.Errorf("%v came in, which nobody had asked", got)
			}
			in.say(netip.MustParseAddrPort("11.0.0.2:1000"))
			if second := b.hears(soon); (second == first) == kind.RandomPorts {
				t.Errorf("towards two hosts mapped to %v and %v, random ports: %v", first, second, kind.RandomPorts)
			}
			home.Restart()
			a.say(first)
			if got := in.hears(never); got.IsValid() {
				t.Errorf("after a restart of the router %v still came in", got)
			}
			home.Readdress()
			in.say(netip.MustParseAddrPort("11.0.0.1:1000"))
			if got := a.hears(soon); got.Addr() == first.Addr() {
				t.Error("the router's address is the one that it had")
			}
		})
	}
}

func TestNATBehindANAT(t *testing.T) {
	l := New(t)
	internet := l.Internet()
	out := speakerOn(t, internet.Host("out"), 1000)
	outer := internet.NAT("outer", NATConfig{})
	inner := outer.NAT("inner", NATConfig{})
	in := speakerOn(t, inner.Host("in"), 5000)
	in.say(netip.MustParseAddrPort("11.0.0.1:1000"))
	from := out.hears(soon)
	if from.Addr().String() != outer.Router.Addr {
		t.Errorf("seen as %v, want an address of %s", from, outer.Router.Addr)
	}
	out.say(from)
	if !in.hears(soon).IsValid() {
		t.Error("the answer has not come")
	}
}

func TestNATKeepsOutWhatIsBlocked(t *testing.T) {
	l := New(t)
	internet := l.Internet()
	server := internet.Host("server")
	out := speakerOn(t, server, 1000)
	home := internet.NAT("nat", NATConfig{BlockUDP: true})
	inside := home.Host("inside")
	in := speakerOn(t, inside, 5000)
	in.say(netip.MustParseAddrPort("11.0.0.1:1000"))
	if got := out.hears(never); got.IsValid() {
		t.Errorf("UDP of %v came through", got)
	}
	// TCP goes: it is refused by the server.
	out2, err := inside.Command(l.Context(), "bash", "-c", "exec 3<>/dev/tcp/11.0.0.1/1").CombinedOutput()
	if err == nil || !strings.Contains(string(out2), "refused") {
		t.Errorf("TCP through the NAT: %v\n%s", err, out2)
	}
}

func TestNATForwards(t *testing.T) {
	l := New(t)
	internet := l.Internet()
	out := speakerOn(t, internet.Host("out"), 1000)
	home := internet.NAT("nat", NATConfig{})
	inside := home.Host("inside")
	in := speakerOn(t, inside, 5000)
	home.Forward("udp", 5000, inside)
	out.say(netip.MustParseAddrPort(net.JoinHostPort(home.Router.Addr, strconv.Itoa(5000))))
	if !in.hears(soon).IsValid() {
		t.Error("nothing came through the port that is forwarded")
	}
}

func TestFirewallOfIPv6(t *testing.T) {
	l := New(t)
	internet := l.Internet()
	server := internet.Host("server")
	home := internet.NAT("nat", NATConfig{IPv6: true})
	inside := home.Host("inside")
	later := internet.Host("later")
	in := speakerOn(t, inside, 5000)
	for _, h := range []*Host{server, later} {
		out := speakerOn(t, h, 1000)
		to, own := netip.AddrPortFrom(netip.MustParseAddr(inside.Addr6), 5000), netip.AddrPortFrom(netip.MustParseAddr(h.Addr6), 1000)
		out.say(to)
		if got := in.hears(never); got.IsValid() {
			t.Errorf("%v came in, which nobody had asked", got)
		}
		in.say(own)
		if got := out.hears(soon); got != to {
			t.Errorf("seen as %v, want %v", got, to)
		}
		out.say(to)
		if got := in.hears(soon); got != own {
			t.Errorf("answer from %v, want %v", got, own)
		}
	}
}
