package host

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// TestWindowIsGivenBackWhole has a window grow to its largest, and looks how much
// of it the sender has left at the least: half, as the other half is given back
// once it is read.
func TestWindowIsGivenBackWhole(t *testing.T) {
	const (
		delay   = 10 * time.Millisecond
		largest = 16 << 20
		step    = 64 << 10
	)
	synctest.Test(t, func(t *testing.T) {
		near, far := newDelayed(delay)
		reader, sender := muxed(t, near, false), muxed(t, far, true)
		in, err := reader.OpenStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer in.Reset()
		if _, err := in.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		out, err := sender.AcceptStream()
		if err != nil {
			t.Fatal(err)
		}
		defer out.Reset()
		sent, read := 0, 0
		go func() {
			block := make([]byte, step)
			for {
				if n, err := out.Write(block); err == nil {
					sent += n
				} else {
					return
				}
			}
		}()
		block := make([]byte, step)
		take := func() {
			n, err := io.ReadFull(in, block)
			if err != nil {
				t.Fatal(err)
			}
			read += n
		}
		for read < 8*largest {
			take()
		}
		least := largest
		for range largest / step {
			take()
			time.Sleep(4 * delay) // so that the sender uses what it has
			synctest.Wait()
			least = min(least, sent-read)
		}
		if want := largest/2 - 4*step; least < want {
			t.Errorf("the sender has had as little as %d bytes of the window, want %d", least, want)
		}
	})
}

func muxed(t *testing.T, c net.Conn, isServer bool) network.MuxedConn {
	t.Helper()
	m, err := newMuxer().NewConn(c, isServer, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// delayed is one end of a connection on which everything takes its time.
type delayed struct {
	net.Conn // Nil: whatever is not here is not needed.

	delay   time.Duration
	in, out *pipeline
}

// pipeline is what is on its way in one direction.
type pipeline struct {
	mu      sync.Mutex
	changed *sync.Cond
	packets []packet
	closed  bool
	done    chan struct{} // closed with it
}

type packet struct {
	data []byte
	due  time.Time
}

func newDelayed(delay time.Duration) (near, far *delayed) {
	a, b := &pipeline{done: make(chan struct{})}, &pipeline{done: make(chan struct{})}
	a.changed, b.changed = sync.NewCond(&a.mu), sync.NewCond(&b.mu)
	return &delayed{delay: delay, in: a, out: b}, &delayed{delay: delay, in: b, out: a}
}

func (d *delayed) Write(p []byte) (int, error) {
	d.out.mu.Lock()
	defer d.out.mu.Unlock()
	if d.out.closed {
		return 0, net.ErrClosed
	}
	d.out.packets = append(d.out.packets, packet{append([]byte(nil), p...), time.Now().Add(d.delay)})
	d.out.changed.Broadcast()
	return len(p), nil
}

func (d *delayed) Read(p []byte) (int, error) {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	for len(d.in.packets) == 0 && !d.in.closed {
		d.in.changed.Wait()
	}
	if d.in.closed {
		return 0, io.EOF
	}
	first := &d.in.packets[0]
	if wait := time.Until(first.due); wait > 0 {
		d.in.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-d.in.done: // A session that closes waits for this, and time for the session.
			d.in.mu.Lock()
			return 0, io.EOF
		}
		d.in.mu.Lock()
		first = &d.in.packets[0] // which may have moved meanwhile
	}
	n := copy(p, first.data)
	if first.data = first.data[n:]; len(first.data) == 0 {
		d.in.packets = d.in.packets[1:]
	}
	return n, nil
}

func (d *delayed) Close() error {
	for _, p := range []*pipeline{d.in, d.out} {
		p.mu.Lock()
		if !p.closed {
			p.closed = true
			close(p.done)
		}
		p.changed.Broadcast()
		p.mu.Unlock()
	}
	return nil
}

func (d *delayed) SetDeadline(time.Time) error      { return nil }
func (d *delayed) SetReadDeadline(time.Time) error  { return nil }
func (d *delayed) SetWriteDeadline(time.Time) error { return nil }
