package substituter

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 3 * time.Minute
	maxRequestHeader  = 32 << 10 // bytes
	// writeTimeout is for one piece of a response. Nix stops reading while it
	// unpacks, so it is long.
	writeTimeout = 5 * time.Minute
)

// NewHTTPServer returns a server whose timeouts suit Server.Handler: none for
// a whole response, since a NAR may take hours; the handler bounds each piece.
func NewHTTPServer(h http.Handler, log *zap.Logger) *http.Server {
	// What a client does wrong is for nobody to act upon.
	errorLog, err := zap.NewStdLogAt(log.Named("http"), zap.DebugLevel)
	if err != nil {
		panic("substituter: " + err.Error()) // there is such a level
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxRequestHeader,
		ErrorLog:          errorLog,
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if !s.tasks.request() {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	defer s.tasks.end()
	switch {
	case !s.admits(w, r):
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "read-only", http.StatusMethodNotAllowed)
	case r.ContentLength != 0:
		w.Header().Set("Connection", "close")
		http.Error(w, "unexpected body", http.StatusBadRequest)
	default:
		s.route(w, r)
	}
}

// Guard answers with h those requests alone that name this server and that no
// page of another site makes.
func (s *Server) Guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.admits(w, r) {
			h.ServeHTTP(w, r)
		}
	})
}

// admits refuses what does not name this server, and what other sites ask.
func (s *Server) admits(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case !s.addressed(r):
		http.Error(w, "not a name of this server", http.StatusMisdirectedRequest)
	case fromOtherSite(r):
		// A web page elsewhere must not find out what is cached here, nor make
		// this node ask for things.
		http.Error(w, "no requests from other sites", http.StatusForbidden)
	default:
		return true
	}
	return false
}

func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case name == "nix-cache-info":
		s.serveCacheInfo(w, r)
	case strings.HasSuffix(name, ".narinfo"):
		s.serveNarinfo(w, r, name)
	case strings.HasPrefix(name, "nar/"):
		part, hash, err := narinfo.ParseNARURL(name)
		if err != nil {
			notFound(w)
			return
		}
		s.serveNAR(w, r, part, hash)
	default:
		s.passThrough(w, r, name)
	}
}

// fromOtherSite reports whether a browser asks on behalf of a page that is not
// this server's own. Pages of other ports of this machine count as "same-site".
// Browsers that do not say so, being old, name the page's origin where it could read
// the answer.
func fromOtherSite(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return true
}

// addressed reports whether the request names this server. A foreign name is
// how a web page reaches a server on localhost: DNS rebinding. The control
// socket cannot be reached that way.
func (s *Server) addressed(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local != nil && local.Network() == "unix" {
		return true
	}
	host := strings.ToLower(strings.TrimSuffix(hostOf(r.Host), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Unmap().IsLoopback() {
			return true
		}
		tcp, ok := local.(*net.TCPAddr)
		if ok && tcp.AddrPort().Addr().Unmap() == ip.Unmap() {
			return true
		}
	}
	for _, name := range s.setup().Hosts {
		if host == strings.ToLower(name) {
			return true
		}
	}
	return false
}

// hostOf returns the host of a Host header, without port and brackets.
func hostOf(header string) string {
	if host, _, err := net.SplitHostPort(header); err == nil {
		return host
	}
	return strings.Trim(header, "[]")
}
