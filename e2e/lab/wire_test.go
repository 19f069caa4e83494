package lab

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each conduct, on a client that reads 1,000 bytes of which 600 come well.
func TestWire(t *testing.T) {
	const good, all = 600, 1000
	for conduct, want := range map[Conduct]int{Carry: all, Stall: good, Reset: good, Trickle: good + 1} {
		t.Run(string(conduct), func(t *testing.T) {
			l := New(t)
			listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = listener.Close() })
			go func() {
				if conn, err := listener.Accept(); err == nil {
					_, _ = conn.Write(bytes.Repeat([]byte{'x'}, all))
				}
			}()
			w := l.Wire(listener.Addr().String())
			turned := make(chan struct{})
			w.After(good, conduct, func() { close(turned) })
			conn, err := net.Dial("tcp", w.Addr)
			if conduct == Reset && errors.Is(err, unix.ECONNRESET) {
				return // It overtakes even the end of dialling.
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			got, err := io.ReadFull(conn, make([]byte, want))
			if conduct == Reset && got < good && err != nil {
				got = good // A reset may overtake what was sent before it.
			}
			if got != want || err != nil && conduct != Reset {
				t.Errorf("%d bytes come, %v, want %d", got, err, want)
			}
			<-turned
			<-w.Tripped()
			if conduct != Stall {
				return
			}
			if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("it goes on: %d bytes, %v", n, err)
			}
		})
	}
}
