package lab

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Upstream is a static binary cache over HTTP: a folder made by `nix copy`.
type Upstream struct {
	// URL of the cache. It stays the same when the cache is stopped.
	URL string
	// Dir is the folder that is served.
	Dir string

	lab *Lab

	mu       sync.Mutex
	requests []string
	server   *http.Server
}

// Upstream serves dir on loopback.
func (l *Lab) Upstream(dir string) *Upstream {
	l.t.Helper()
	listener, err := new(net.ListenConfig).Listen(l.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	u := &Upstream{URL: "http://" + listener.Addr().String(), Dir: dir, lab: l}
	files := http.FileServer(http.Dir(dir))
	u.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.requests = append(u.requests, r.Method+" "+r.URL.Path)
		u.mu.Unlock()
		files.ServeHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = u.server.Serve(listener) // Always ErrServerClosed.
	}()
	l.t.Cleanup(func() {
		u.Stop()
		<-done
	})
	return u
}

// Stop switches the cache off: connections are refused from now on.
func (u *Upstream) Stop() {
	_ = u.server.Close()
}

// RemoveNARs deletes the NARs and leaves the narinfos.
func (u *Upstream) RemoveNARs() {
	u.lab.t.Helper()
	if err := os.RemoveAll(filepath.Join(u.Dir, "nar")); err != nil {
		u.lab.t.Fatalf("lab: %v", err)
	}
}

// Requests returns "METHOD /path" of the requests so far that have part in
// their path.
func (u *Upstream) Requests(part string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var found []string
	for _, r := range u.requests {
		if strings.Contains(r, part) {
			found = append(found, r)
		}
	}
	return found
}

// Hide moves a file or folder out of the way, Unhide back.
func (l *Lab) Hide(path string) {
	l.t.Helper()
	if err := os.Rename(path, path+".hidden"); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
}

// Unhide undoes Hide.
func (l *Lab) Unhide(path string) {
	l.t.Helper()
	if err := os.Rename(path+".hidden", path); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
}
