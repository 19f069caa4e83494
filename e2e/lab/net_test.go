package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shaped returns when each of n packets of size bytes arrives that come every
// interval, and how many are lost.
func shaped(line Line, n, size int, interval time.Duration) (due []time.Duration, lost int) {
	s, _ := line.directions(1)
	for i := range n {
		if at, ok := s.admit(time.Duration(i)*interval, size); ok {
			due = append(due, at)
		} else {
			lost++
		}
	}
	return due, lost
}

func TestShaper(t *testing.T) {
	const mbit = 1_000_000
	for _, tt := range []struct {
		name     string
		line     Line
		n        int
		interval time.Duration
		// first and last are when the first and the last packet arrive, each of 1,250
		// bytes.
		first, last time.Duration
		lost        int
	}{
		{name: "nothing", n: 10, interval: time.Millisecond, last: 9 * time.Millisecond},
		{name: "a delay", line: Line{Delay: time.Second}, n: 10, interval: time.Millisecond, first: time.Second, last: 1009 * time.Millisecond},
		{name: "a rate that suffices", line: Line{Rate: 10 * mbit}, n: 10, interval: time.Millisecond, first: time.Millisecond, last: 10 * time.Millisecond},
		{
			// The queue fills by half a packet with each that comes, and when it is full
			// every other one goes.
			name: "a rate that does not", line: Line{Rate: 5 * mbit, Queue: 20 * time.Millisecond}, n: 1020, interval: time.Millisecond,
			first: 2 * time.Millisecond, last: 1040 * time.Millisecond, lost: 500,
		},
		{name: "a burst", line: Line{Rate: 10 * mbit, Delay: 5 * time.Millisecond}, n: 100, first: 6 * time.Millisecond, last: 16 * time.Millisecond, lost: 89},
	} {
		t.Run(tt.name, func(t *testing.T) {
			due, lost := shaped(tt.line, tt.n, 1250, tt.interval)
			if first, last := due[0], due[len(due)-1]; first != tt.first || last != tt.last || lost != tt.lost {
				t.Errorf("from %v to %v, %d lost; want from %v to %v, %d lost", first, last, lost, tt.first, tt.last, tt.lost)
			}
		})
	}
}

// What one direction sends the other one waits for, where they share the line.
func TestSharedLine(t *testing.T) {
	for shared, want := range map[bool]time.Duration{false: time.Second, true: 2 * time.Second} {
		line := Line{Rate: 8000, Shared: shared, Queue: time.Minute}
		up, down := line.directions(1)
		up.admit(0, 1000)
		if due, ok := down.admit(0, 1000); due != want || !ok {
			t.Errorf("shared %t: the second packet arrives after %v, %t, want %v", shared, due, ok, want)
		}
	}
}

func TestShaperLoses(t *testing.T) {
	const n, share = 100_000, 0.01
	due, lost := shaped(Line{Loss: share, Rate: 1_000_000_000}, n, 1500, time.Millisecond)
	if sigma := math.Sqrt(n * share * (1 - share)); math.Abs(float64(lost)-n*share) > 5*sigma {
		t.Errorf("%d of %d packets lost, want about %v", lost, n, n*share)
	}
	for i := 1; i < len(due); i++ {
		if due[i] <= due[i-1] {
			t.Fatalf("packet %d arrives at %v, the one before it at %v", i, due[i], due[i-1])
		}
	}
}

// Those that are overtaken arrive all the same, and the others in their order.
func TestPipeReorders(t *testing.T) {
	const n, share = 10_000, 0.1
	var got []byte
	p := pipe{
		shaper: shaper{line: Line{Delay: time.Second, Reorder: share}, free: new(time.Duration), random: rand.New(rand.NewPCG(1, 2))},
		next:   func(p packet) { got = append(got, p.bytes...) },
	}
	for i := range n {
		if !p.put(time.Duration(i)*time.Millisecond, binary.BigEndian.AppendUint16(nil, uint16(i)), 1500) {
			t.Fatal("lost")
		}
	}
	var last time.Duration
	for due, ok := p.due(); ok; due, ok = p.due() {
		if due < last {
			t.Fatalf("one is due at %v after one at %v", due, last)
		}
		last = due
		p.take()
	}
	overtaken, highest := 0, uint16(0)
	for at := 0; at < len(got); at += 2 {
		i := binary.BigEndian.Uint16(got[at:])
		if i < highest {
			overtaken++
		}
		highest = max(highest, i)
	}
	if sigma := math.Sqrt(n * share * (1 - share)); len(got) != 2*n || math.Abs(float64(overtaken)-n*share) > 5*sigma {
		t.Errorf("%d of %d packets arrive, %d overtaken, want about %v", len(got)/2, n, overtaken, n*share)
	}
}

func TestPipeKeepsOrder(t *testing.T) {
	var got []byte
	p := pipe{shaper: shaper{line: Line{Delay: time.Second}, free: new(time.Duration)}, next: func(p packet) { got = append(got, p.bytes...) }}
	var want []byte
	for i := range 100 {
		b := byte(i)
		want = append(want, b)
		if !p.put(time.Duration(i), []byte{b}, 1) {
			t.Fatal("a packet is lost")
		}
		if due, ok := p.due(); !ok || due < time.Second {
			t.Fatalf("a packet is due at %v (%t), want a second later", due, ok)
		}
		if i%3 == 0 {
			p.take()
		}
	}
	for _, ok := p.due(); ok; _, ok = p.due() {
		p.take()
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestWireSize(t *testing.T) {
	frame := func(size int, kind byte, headers, segment uint16) []byte {
		b := make([]byte, vnetHeader+size)
		b[1] = kind
		binary.NativeEndian.PutUint16(b[2:], headers)
		binary.NativeEndian.PutUint16(b[4:], segment)
		return b
	}
	for _, tt := range []struct {
		name  string
		frame []byte
		want  int
	}{
		{"one packet", frame(1500, 0, 0, 0), 1514},
		{"three packets and a bit", frame(40+3*1460+1, 1, 40, 1460), 3*1514 + 55},
		{"nothing but headers", frame(40, 1, 40, 1460), 54},
		{"packets without a size", frame(1500, 1, 40, 0), 1514},
	} {
		if got := wireSize(tt.frame); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, got, tt.want)
		}
	}
}

// TestNet sends a file over lines of each kind, and times it against what the
// lines allow: it can be slower on a busy machine, but never faster.
func TestNet(t *testing.T) {
	for _, tt := range []struct {
		name string
		line Line
		size int
		// least is the least time that the file takes.
		least time.Duration
	}{
		{"unlimited", Line{}, 8 << 20, 0},
		{"fast", Line{Rate: 1_000_000_000, Delay: time.Millisecond}, 8 << 20, 67 * time.Millisecond},
		{"slow", Line{Rate: 40_000_000, Delay: 5 * time.Millisecond}, 1 << 20, 209 * time.Millisecond},
		{"lossy", Line{Loss: 0.02, Delay: time.Millisecond}, 1 << 20, 3 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := New(t).Net()
			server, client := n.Host("11.0.0.1", tt.line), n.Host("192.168.5.2", Line{})
			want := make([]byte, tt.size)
			for i := 0; i < len(want); i += 8 {
				binary.LittleEndian.PutUint64(want[i:], rand.Uint64())
			}
			serve(t, server, want)
			conn := dial(t, client, "tcp4", server.Addr)
			began := time.Now()
			got, err := io.ReadAll(conn)
			took := time.Since(began)
			if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
				t.Errorf("got %d other bytes, %v", len(got), err)
			}
			if took < tt.least {
				t.Errorf("%d bytes in %v, want %v at least", len(got), took, tt.least)
			}
		})
	}
}

// TestNetLoses counts datagrams. A connection that is made after them has its
// packets behind theirs, so when there is one they have arrived.
func TestNetLoses(t *testing.T) {
	const n, share = 200, 0.3 // as many as a socket keeps
	net := New(t).Net()
	server, client := net.Host("11.0.0.1", Line{Loss: share}), net.Host("11.0.0.2", Line{})
	serve(t, server, nil)
	packets := listenPackets(t, server)
	sender := dial(t, client, "udp4", server.Addr)
	for range n {
		if _, err := sender.Write([]byte("datagram")); err != nil {
			t.Fatal(err)
		}
	}
	dial(t, client, "tcp4", server.Addr)
	raw, err := packets.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	arrived := 0
	err = raw.Read(func(fd uintptr) bool {
		for err == nil {
			if _, err = unix.Read(int(fd), make([]byte, 100)); err == nil {
				arrived++
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if lost, sigma := float64(n-arrived), math.Sqrt(n*share*(1-share)); math.Abs(lost-n*share) > 5*sigma {
		t.Errorf("%v of %d datagrams lost, want about %v", lost, n, n*share)
	}
}

const testPort = "7000"

// serve sends data to everyone who connects with h.
func serve(t *testing.T, h *Host, data []byte) {
	t.Helper()
	var listener net.Listener
	err := inNamespace(h.ns, func() (err error) {
		listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp4", net.JoinHostPort(h.Addr, testPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write(data)
			_ = conn.Close()
		}
	}()
}

func listenPackets(t *testing.T, h *Host) (conn *net.UDPConn) {
	t.Helper()
	err := inNamespace(h.ns, func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(h.Addr+":"+testPort)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func dial(t *testing.T, h *Host, network, addr string) (conn net.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	err := inNamespace(h.ns, func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(addr, testPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
