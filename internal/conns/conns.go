// Package conns keeps the connections of an HTTP server within bounds: how many
// there are, how long the body of a request may take, and how long an answer may
// stay unread where its handler does not say. The server itself bounds the rest,
// see http.Server.
//
// A connection is at rest while it has no request to answer: before the first, in
// between, and while the header of the next one is on its way. When there are too
// many, or no descriptors are left, it is one of those that makes room.
package conns

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/moment"
)

const (
	// bodyTimeout is for the whole body of a request. The largest, that of a closure,
	// has 6 MB and comes from this machine.
	bodyTimeout = 30 * time.Second
	// writeTimeout is for one write. Nix stops reading while it unpacks.
	writeTimeout = 5 * time.Minute
	// stalled is after how long a write that does not come to its end costs its
	// connection where there are too many.
	stalled = 10 * time.Second
)

// Bound returns l with at most limit connections at once, and makes the server,
// which must serve nothing else, mark those that have a request. Who comes when
// all have one is turned away.
func Bound(server *http.Server, l net.Listener, limit int) net.Listener {
	handler, withContext := server.Handler, server.ConnContext
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*conn); ok {
			c.atRest.Clear()
			defer c.rest()
		}
		limitTimes(w, r)
		handler.ServeHTTP(w, r)
	})
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if withContext != nil {
			ctx = withContext(ctx, c)
		}
		return context.WithValue(ctx, connKey{}, c)
	}
	return &listener{Listener: l, limit: limit, reserve: reserved(), conns: make(map[*conn]struct{}), from: make(map[string]int)}
}

// connKey is where a request's context has its *conn.
type connKey struct{}

// limitTimes bounds how long the request's body may take, and forgets what was said
// of writes to the request before it.
func limitTimes(w http.ResponseWriter, r *http.Request) {
	controller := http.NewResponseController(w)
	// Not every ResponseWriter has deadlines; that of a server has.
	_ = controller.SetWriteDeadline(time.Time{})
	if r.ContentLength != 0 {
		// Which the server lifts at the end of the body.
		_ = controller.SetReadDeadline(time.Now().Add(bodyTimeout))
	}
}

type listener struct {
	net.Listener

	limit int
	// reserve is Accept's; see squeeze.
	reserve io.Closer

	mu    sync.Mutex
	conns map[*conn]struct{}
	// from counts the connections by where they come from.
	from map[string]int
}

// Accept returns the next connection for which there is room.
func (l *listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if exhausted(err) {
			accepted, err = l.squeeze(err)
		}
		if err != nil {
			return nil, err
		}
		if l.reserve == nil {
			l.reserve = reserved()
		}
		if accepted == nil {
			continue // it was turned away
		}
		if c := l.admit(accepted); c != nil {
			return c, nil
		}
		_ = accepted.Close() // nothing was sent on it
	}
}

// admit makes room for a connection, or returns nil.
func (l *listener) admit(accepted net.Conn) *conn {
	c := &conn{Conn: accepted, of: l, from: hostOf(accepted.RemoteAddr())}
	c.rest()
	l.mu.Lock()
	var spare *conn
	if len(l.conns) >= l.limit {
		if spare = l.spare(); spare == nil {
			l.mu.Unlock()
			return nil
		}
		l.remove(spare)
	}
	l.conns[c] = struct{}{}
	l.from[c.from]++
	l.mu.Unlock()
	if spare != nil {
		_ = spare.Conn.Close() // its server notices
	}
	return c
}

// spare returns the connection that is to make room, or nil: of those at rest, and
// else of those whose client does not read, the oldest of whoever has the most; l.mu
// is held.
func (l *listener) spare() *conn {
	now := time.Now()
	var best *conn
	var bestSince time.Time
	bestRests := false
	for c := range l.conns {
		since, rests := c.atRest.Time(), true
		if since.IsZero() {
			since, rests = c.writing.Time(), false
			if since.IsZero() || now.Sub(since) < stalled {
				continue
			}
		}
		better := best == nil || rests && !bestRests
		if !better && rests == bestRests {
			more := l.from[c.from] - l.from[best.from]
			better = more > 0 || more == 0 && since.Before(bestSince)
		}
		if better {
			best, bestSince, bestRests = c, since, rests
		}
	}
	return best
}

// remove takes a connection out; l.mu is held.
func (l *listener) remove(c *conn) {
	if _, ok := l.conns[c]; !ok {
		return
	}
	delete(l.conns, c)
	if l.from[c.from]--; l.from[c.from] == 0 {
		delete(l.from, c.from)
	}
}

func hostOf(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "" // a unix socket: all are of this machine
	}
	return host
}

// conn is a connection of a bounded server.
type conn struct {
	net.Conn

	of   *listener
	from string
	// atRest is since when it has no request, and writing since when a write is
	// under way; none where that is not so.
	atRest, writing moment.Moment
	// timed says that whoever writes has set a deadline.
	timed atomic.Bool
}

func (c *conn) rest() { c.atRest.Set(time.Now()) }

// NetConn returns the connection below.
func (c *conn) NetConn() net.Conn { return c.Conn }

// Write writes, within writeTimeout where no other deadline was set.
func (c *conn) Write(p []byte) (int, error) {
	now := time.Now()
	if !c.timed.Load() {
		if err := c.Conn.SetWriteDeadline(now.Add(writeTimeout)); err != nil {
			return 0, err
		}
	}
	c.writing.Set(now)
	defer c.writing.Clear()
	return c.Conn.Write(p)
}

// SetWriteDeadline sets the deadline of writes; a zero time leaves each with
// writeTimeout.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.timed.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline is that of reads and of writes.
func (c *conn) SetDeadline(t time.Time) error {
	c.timed.Store(!t.IsZero())
	return c.Conn.SetDeadline(t)
}

// Close closes the connection and makes room.
func (c *conn) Close() error {
	c.of.mu.Lock()
	c.of.remove(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
