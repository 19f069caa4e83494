package conns

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// atHand is how long a connection may take to be accepted that is there already.
const atHand = 10 * time.Millisecond

// exhausted reports whether there are no descriptors for another connection.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// reserved returns something that has a descriptor, or nil.
func reserved() io.Closer {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return nil
	}
	return f
}

// squeeze accepts a connection although there are no descriptors left, with one that is
// kept for that: its client would else wait for as long as there are none. Where none
// makes room for it it is closed, and nil is returned: Nix goes to its next substituter.
// Where no connection waits the error says why none could be accepted.
func (l *listener) squeeze(why error) (net.Conn, error) {
	deadlines, ok := l.Listener.(interface{ SetDeadline(t time.Time) error })
	if !ok || l.reserve == nil || deadlines.SetDeadline(time.Now().Add(atHand)) != nil {
		return nil, why
	}
	_ = l.reserve.Close()
	waiting, err := l.Listener.Accept()
	_ = deadlines.SetDeadline(time.Time{}) // which could be set before
	l.reserve = reserved()
	if err != nil {
		return nil, why
	}
	if l.reserve == nil && !l.drop() {
		_ = waiting.Close() // nothing was sent on it
		return nil, nil
	}
	return waiting, nil
}

// drop closes the connection that is to make room, if there is one.
func (l *listener) drop() bool {
	l.mu.Lock()
	spare := l.spare()
	if spare != nil {
		l.remove(spare)
	}
	l.mu.Unlock()
	return spare != nil && spare.Conn.Close() == nil
}
