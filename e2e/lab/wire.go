package lab

import (
	"context"
	"net"
	"sync"
	"time"
)

// Conduct is what becomes of a wire. Its text tells people what the peer at its
// end does.
type Conduct string

// The conducts, but for the one that carries everything.
const (
	Carry Conduct = ""
	// Stall keeps connections open and carries nothing more.
	Stall Conduct = "stalls"
	// Reset breaks connections, and those that come.
	Reset Conduct = "resets the connection"
	// Trickle carries one byte a second to the client.
	Trickle Conduct = "sends one byte a second"
)

// Wire is the way by TCP from clients to a server, in the test's hand.
type Wire struct {
	// Addr is where clients connect.
	Addr string

	target   string
	listener net.Listener
	running  sync.WaitGroup
	// closed ends everything that waits.
	closed chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	// left is how many bytes may still come from the server before the wire turns
	// to what is armed, and then calls then; it has turned once tripped is closed.
	left    int64
	armed   Conduct
	then    func()
	tripped chan struct{}
}

// Wire leads to a server on this machine.
func (l *Lab) Wire(target string) *Wire {
	l.t.Helper()
	listener, err := new(net.ListenConfig).Listen(l.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	w := &Wire{
		Addr: listener.Addr().String(), target: target, listener: listener, closed: make(chan struct{}),
		conns: make(map[net.Conn]struct{}), left: -1, tripped: make(chan struct{}),
	}
	w.running.Go(w.accept)
	l.t.Cleanup(w.close)
	return w
}

// After makes the wire turn to a conduct once the server has sent some bytes
// more, and calls then. It is to be called once.
func (w *Wire) After(bytes int64, conduct Conduct, then func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.armed, w.then = bytes, conduct, then
}

// Tripped is closed once the wire has turned.
func (w *Wire) Tripped() <-chan struct{} { return w.tripped }

func (w *Wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.running.Go(func() { w.join(near) })
	}
}

func (w *Wire) join(near net.Conn) {
	far, err := new(net.Dialer).DialContext(context.Background(), "tcp", w.target)
	if err != nil {
		reset(near) // as the server would
		return
	}
	if !w.note(near, far) {
		return
	}
	defer w.forget(near, far)
	var up sync.WaitGroup
	up.Go(func() {
		carryFrom(near, func(p []byte) bool { return w.send(far, p) })
		_ = far.Close() // The other direction ends too.
	})
	carryFrom(far, func(p []byte) bool { return w.receive(near, p) })
	_ = near.Close()
	up.Wait()
}

// carryFrom reads from a connection and hands on, until one of the two fails.
func carryFrom(from net.Conn, hand func([]byte) bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !hand(buf[:n]) || err != nil {
			return
		}
	}
}

// send hands on what a client sends.
func (w *Wire) send(far net.Conn, p []byte) bool {
	select {
	case <-w.tripped:
		if w.armed == Stall {
			<-w.closed
			return false
		}
	default:
	}
	_, err := far.Write(p)
	return err == nil
}

// receive hands on what the server sends, as far as the wire still does.
func (w *Wire) receive(near net.Conn, p []byte) bool {
	good := w.take(len(p))
	if _, err := near.Write(p[:good]); err != nil {
		return false
	}
	if good == len(p) {
		return true
	}
	switch w.armed {
	case Stall:
		<-w.closed
		return false
	case Reset:
		reset(near)
		return false
	case Trickle:
		return w.trickle(near, p[good:])
	case Carry:
	}
	_, err := near.Write(p[good:])
	return err == nil
}

// take returns how many of n bytes come before the wire turns, which it does
// where these are not all.
func (w *Wire) take(n int) (good int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left < 0 {
		return n
	}
	good = int(min(int64(n), w.left))
	w.left -= int64(good)
	select {
	case <-w.tripped:
		return good
	default:
	}
	if good < n {
		close(w.tripped)
		if w.then != nil {
			w.running.Go(w.then)
		}
	}
	return good
}

func (w *Wire) trickle(near net.Conn, p []byte) bool {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range p {
		select {
		case <-tick.C:
		case <-w.closed:
			return false
		}
		if _, err := near.Write(p[i : i+1]); err != nil {
			return false
		}
	}
	return true
}

// note remembers connections that close has to close.
func (w *Wire) note(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.closed:
		for _, c := range conns {
			_ = c.Close()
		}
		return false
	default:
	}
	for _, c := range conns {
		w.conns[c] = struct{}{}
	}
	return true
}

func (w *Wire) forget(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		delete(w.conns, c)
		_ = c.Close()
	}
}

func (w *Wire) close() {
	_ = w.listener.Close()
	w.mu.Lock()
	close(w.closed)
	for c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.running.Wait()
}
