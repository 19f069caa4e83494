package lab

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Fault is a way in which an upstream fails. Its text tells people what the
// upstream does.
type Fault string

// The faults. Refused and BlackHole concern the whole server.
const (
	Healthy Fault = ""

	HangBeforeHeaders Fault = "hangs before the headers"
	HangInBody        Fault = "hangs in the body"
	Slow              Fault = "is slow by 3 s"

	ServerError     Fault = "answers 500"
	Unavailable     Fault = "answers 503, Retry-After: 120"
	TooManyRequests Fault = "answers 429, Retry-After: 120"
	RedirectLoop    Fault = "redirects for ever"

	ResetBeforeHeaders Fault = "resets before the headers"
	ResetInBody        Fault = "resets in the body"
	LengthTooLarge     Fault = "promises more than it sends"
	LengthTooSmall     Fault = "promises less than it sends"

	Truncated     Fault = "sends half of each file"
	Binary        Fault = "sends random bytes"
	CaptivePortal Fault = "sends a log-in page with 200"

	Refused   Fault = "refuses connections"
	BlackHole Fault = "swallows connections"

	Empty   Fault = "answers 200 and nothing"
	Trickly Fault = "sends one byte a second"
	Endless Fault = "sends zeros without end"
	NoHTTP  Fault = "speaks another protocol"
)

// slowness is what Slow is slow by.
const slowness = 3 * time.Second

// retryAfter is in seconds. It is longer than any test.
const retryAfter = "120"

// Faults returns all of them, Healthy not among them.
func Faults() []Fault {
	return []Fault{
		HangBeforeHeaders, HangInBody, Slow, ServerError, Unavailable, TooManyRequests, RedirectLoop, ResetBeforeHeaders,
		ResetInBody, LengthTooLarge, LengthTooSmall, Truncated, Binary, CaptivePortal, Refused, BlackHole,
		Empty, Trickly, Endless, NoHTTP,
	}
}

// Reachable tells whether a server with this fault takes connections.
func (f Fault) Reachable() bool { return f != Refused && f != BlackHole }

// Hangs tells whether this fault lets a client wait until its patience ends.
func (f Fault) Hangs() bool {
	return f == HangBeforeHeaders || f == HangInBody || f == BlackHole || f == Trickly
}

// serve answers a request as healthy would, but for the fault.
func (f Fault) serve(w http.ResponseWriter, r *http.Request, healthy http.Handler) {
	switch f {
	case Healthy:
		healthy.ServeHTTP(w, r)
	case HangBeforeHeaders:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Slow:
		if wait(r, slowness) {
			healthy.ServeHTTP(w, r)
		}
	case ServerError:
		http.Error(w, "out of order", http.StatusInternalServerError)
	case Unavailable:
		w.Header().Set("Retry-After", retryAfter)
		http.Error(w, "come back later", http.StatusServiceUnavailable)
	case TooManyRequests:
		w.Header().Set("Retry-After", retryAfter)
		http.Error(w, "come back later", http.StatusTooManyRequests)
	case RedirectLoop:
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	case CaptivePortal:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body>Please log in.</body></html>\n")
	case ResetBeforeHeaders:
		reset(hijack(w))
	case Empty:
		w.WriteHeader(http.StatusOK)
	case NoHTTP:
		conn := hijack(w)
		_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.2p1\r\n")
		_ = conn.Close()
	case Trickly, Endless:
		f.drag(w, r, healthy)
	default:
		f.spoil(w, r, healthy)
	}
}

// spoil answers with what healthy would say, spoilt on the way.
func (f Fault) spoil(w http.ResponseWriter, r *http.Request, healthy http.Handler) {
	good := &answer{header: w.Header(), status: http.StatusOK}
	healthy.ServeHTTP(good, r)
	body := good.body.Bytes()
	first, second := body[:len(body)/2], body[len(body)/2:]
	promised := len(body)
	switch f {
	case Truncated:
		promised, second = len(first), nil
	case LengthTooSmall:
		promised = len(first)
	case Binary:
		for i := range body {
			body[i] ^= 0xa5
		}
	default:
	}
	w.Header().Set("Content-Length", strconv.Itoa(promised))
	w.WriteHeader(good.status)
	// Whoever has gone does not read it.
	_, _ = w.Write(first)
	_ = http.NewResponseController(w).Flush()
	switch f {
	case HangInBody:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case LengthTooLarge:
		panic(http.ErrAbortHandler) // closes the connection
	case ResetInBody:
		reset(hijack(w))
	case LengthTooSmall:
		conn := hijack(w)
		_, _ = conn.Write(second)
		_ = conn.Close()
	default:
		_, _ = w.Write(second)
	}
}

// junk is sent again and again, not so fast that a client which takes it all fills the
// machine.
var junk = make([]byte, 64<<10)

const junkPause = 10 * time.Millisecond

// drag answers, and goes on and on.
func (f Fault) drag(w http.ResponseWriter, r *http.Request, healthy http.Handler) {
	send := func(piece []byte, pause time.Duration) {
		_, err := w.Write(piece)
		_ = http.NewResponseController(w).Flush()
		if err != nil || !wait(r, pause) {
			panic(http.ErrAbortHandler)
		}
	}
	for f == Endless {
		send(junk, junkPause)
	}
	good := &answer{header: http.Header{}, status: http.StatusOK}
	healthy.ServeHTTP(good, r)
	body := good.body.Bytes()
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	for i := range body {
		send(body[i:i+1], time.Second)
	}
}

// answer is a response that is kept.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// wait reports whether the client was still there at the end of d.
func wait(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// hijack takes the connection out of the server's hands.
func hijack(w http.ResponseWriter) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return conn
}

// reset closes a connection so that the other side sees a reset.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // Else it would end in good order, which a test notices.
	}
	_ = conn.Close()
}
